"""The TCP store's service: whom it lets in, what it takes, what it survives."""

import contextlib
import hashlib
import json
import os
import random
import re
import signal
import socket
import threading
import time
from pathlib import Path

import pytest

from curitorch.external.stores.service.leases import JobLease
from curitorch.external.stores.service.refusal import Refusal
from curitorch.external.stores.store import (
    Lease,
    LeaseLost,
    StoreError,
    StoreUnreachable,
)
from curitorch.external.stores.tcp import TcpStore
from curitorch.external.stores.tcp.exchange import Exchange
from curitorch.external.stores.testing.running_service import TOKEN, RunningService

UPLOAD = "a" * 32
FILE = f"/jobs/job/uploads/{UPLOAD}/files/model.ckpt"


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("service")
    with RunningService(folder, "--body-seconds", "0.5", "--idle-seconds", "0.5") as service:
        yield service


def model(tmp_path: Path, content: bytes = b"hello") -> dict[str, Path]:
    path = tmp_path / "a model"
    path.write_bytes(content)
    return {"model.ckpt": path}


def begin(service: RunningService, size: int, job: str = "job", step: int = 1) -> tuple[int, dict]:
    body = json.dumps({"step": step, "files": {"model.ckpt": size}}).encode()
    status, answer = service.ask("PUT", f"/jobs/{job}/uploads/{UPLOAD}", body)
    return status, json.loads(answer)


def give_up(service: RunningService) -> None:
    service.ask("DELETE", f"/jobs/job/uploads/{UPLOAD}")


def raw(service: RunningService, data: bytes, *, seconds: float = 5.0) -> bytes:
    """Send bytes as they are; returns what came of the answer before the connection ended."""
    with socket.create_connection(("127.0.0.1", service.port), timeout=seconds) as connection:
        with contextlib.suppress(ConnectionError):
            connection.sendall(data)
        return answer_on(connection)


def answer_on(connection: socket.socket) -> bytes:
    got, wanted = b"", 1
    with contextlib.suppress(ConnectionError):
        while wanted > 0 and (piece := connection.recv(65536)):
            got += piece
            ending, _, body = got.partition(b"\r\n\r\n")
            if ending != got and not ending.startswith(b"HTTP/1.1 100"):
                said = re.search(rb"(?i)\r\ncontent-length: (\d+)", ending)
                wanted = int(said[1]) - len(body) if said else 1
    return got


def head(method: str, path: str, *more: str, length: int = 0, token: str = TOKEN) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: x", f"Authorization: Bearer {token}"]
    lines += [f"Content-Length: {length}", *more]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def tree(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def sentence(answer: bytes) -> str:
    record = json.loads(answer.partition(b"\r\n\r\n")[2] or answer)
    assert record["kind"]
    return record["error"]


# Who comes in.


def test_health_needs_no_token_and_all_else_does(shared):
    assert shared.ask("GET", "/health", token=None) == (200, b'{"status": "ok"}')
    for method, path in [
        *[("GET", "/metrics"), ("GET", "/jobs/job/checkpoints"), ("PUT", FILE), ("HEAD", FILE)],
        *[("POST", "/jobs/job/lease"), ("DELETE", "/jobs/job/checkpoints/1"), ("GET", "/nothing")],
    ]:
        for token in (None, "", "wrong", TOKEN[:-1], TOKEN + "x", "é" * 20):
            status, answer = shared.ask(method, path, token=token)
            assert status == 401, (method, path, token)
            assert method == "HEAD" or "token" in sentence(answer)


def test_other_schemes_are_no_token(shared):
    for value in (TOKEN, f"Basic {TOKEN}", f"Bearer{TOKEN}", "Bearer", "Bearer "):
        answer = raw(
            shared,
            f"GET /metrics HTTP/1.1\r\nHost: x\r\nAuthorization: {value}\r\n"
            "Connection: close\r\n\r\n".encode(),
        )
        assert b" 401 " in answer.splitlines()[0]


def test_a_body_without_a_token_is_refused_before_it_is_sent(shared):
    request = head("PUT", FILE, "Expect: 100-continue", length=10**9, token="wrong" * 5)
    answer = raw(shared, request)
    assert b" 401 " in answer.splitlines()[0]


def test_tokens_rotate_without_a_restart(tmp_path):
    with RunningService(tmp_path) as service, service.store() as store:
        store.put(1, model(tmp_path))
        new = "the-next-token-of-the-service"
        service.token_file.write_text(f"# both\n{TOKEN}\n{new}\n")
        assert service.ask("GET", "/metrics")[0] == 200
        service.token_file.write_text(f"{new}\n")
        assert service.ask("GET", "/metrics")[0] == 401
        assert service.ask("GET", "/metrics", token=new)[0] == 200
        store.put(2, model(tmp_path))  # it reads the same file
        old = service.store(token_file=None, token=TOKEN)
        with old, pytest.raises(StoreError, match="rotated"):
            old.list()
        assert len(store.list()) == 2


def test_a_token_that_is_rotated_in_the_middle_of_an_upload_holds_nobody_up(tmp_path):
    old, new = TOKEN, "the-next-token-of-the-service"
    own = tmp_path / "the client's own token file"
    own.write_text(old)
    with RunningService(tmp_path) as service:

        def rotate():
            own.write_text(new)
            service.token_file.write_text(new)

        with (
            Proxy(service.port, [3_000_000], rotate) as proxy,
            behind(proxy, service, token_file=own) as store,
            store.lease("node-a") as lease,
        ):
            put = store.put(1, model(tmp_path, os.urandom(6_000_000)), lease=lease)
            assert proxy.cuts == []
            assert proxy.passed < 8_000_000
            assert store.newest_valid() == put
            store.delete(1, lease=lease)
        assert service.ask("GET", "/metrics", token=old)[0] == 401


def test_a_token_that_is_rotated_between_being_read_and_sent_is_read_again(tmp_path, monkeypatch):
    send_head, rotated = Exchange.send_head, set()

    def send_late(exchange, method, path, token, headers):
        what = (method, path.partition("?")[0])
        if what not in rotated:
            rotated.add(what)
            service.token_file.write_text(f"the-token-number-{len(rotated)}")
        send_head(exchange, method, path, token, headers)

    with RunningService(tmp_path) as service, service.store(tries=2) as store:
        monkeypatch.setattr(Exchange, "send_head", send_late)
        with store.lease("node-a") as lease:
            put = store.put(1, model(tmp_path, os.urandom(100_000)), lease=lease)
            assert store.newest_valid() == put
            fetched = store.fetch(put, "model.ckpt", tmp_path / "here")
            assert fetched.read_bytes() == (tmp_path / "a model").read_bytes()
            store.delete(1, lease=lease)
        assert {method for method, _ in rotated} == {"POST", "PUT", "HEAD", "GET", "DELETE"}


@pytest.mark.parametrize("content", [None, "", "# none\n", "short\n", f"{TOKEN} ../up\n"])
def test_with_a_bad_token_file_nobody_comes_in_until_it_is_mended(tmp_path, content):
    with RunningService(tmp_path) as service:
        service.token_file.unlink()
        if content is not None:
            service.token_file.write_text(content)
        status, answer = service.ask("GET", "/metrics")
        assert (status, "Try again" in sentence(answer)) == (503, True)
        assert TOKEN.encode() not in answer
        service.token_file.write_text(TOKEN)
        assert service.ask("GET", "/metrics")[0] == 200


def test_a_token_can_be_for_some_jobs_only(tmp_path):
    with RunningService(tmp_path) as service:
        service.token_file.write_text(f"{TOKEN} mine also-mine\n")
        assert service.ask("GET", "/jobs/mine/checkpoints")[0] == 200
        assert service.ask("GET", "/jobs/also-mine/checkpoints")[0] == 200
        for job in ("other", "%6dine2", "mine%2f..%2fother"):
            assert service.ask("GET", f"/jobs/{job}/checkpoints")[0] in (403, 404)
        assert service.ask("GET", "/jobs/%6dine/checkpoints")[0] == 200


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--host", "0.0.0.0"], "--insecure"),
        (["--token-file", "/nowhere/token"], "/nowhere/token"),
        (["--quota", "much"], "500M"),
        (["--tls-key", "/dev/null"], "--tls-cert"),
        (["--tls-cert", "/nowhere/cert"], "No such file"),
        (["--host", "192.0.2.1", "--insecure"], "192.0.2.1"),
    ],
)
def test_what_cannot_be_meant_is_refused_at_the_start(tmp_path, options, says):
    with pytest.raises(RuntimeError, match=says):
        RunningService(tmp_path).start(*options)


def test_a_root_has_one_service(shared, tmp_path):
    other = RunningService(tmp_path)
    other.root = shared.root
    with pytest.raises(RuntimeError, match="Another service"):
        other.start()


# What leads out of the root.

UPS = [
    *("..", "../..", "%2e%2e", "%2E%2E%2F%2e%2e", "..%2f..%2fcanary", "..%5c..", "%252e%252e"),
    *("/canary", "%2fcanary", "//canary", "a%00b", "%00", ".", "%2e", ".service.lock"),
    *("%c0%ae%c0%ae", "%ef%bc%8e%ef%bc%8e", "\u2024\u2024", "é", "a%0d%0ab", "-rf", "a" * 201),
    *("%ff", "~", "a b", "*", "con%3a", ""),
]


@pytest.mark.parametrize("name", UPS)
def test_no_name_leads_out_of_the_root(shared, name):
    canary = shared.root.parent / "canary"
    canary.write_text("as it was")
    assert begin(shared, 3)[0] == 201
    before = tree(shared.root.parent)
    ups = name.encode("utf-8").decode("latin-1")
    declared = json.dumps({"step": 1, "files": {"../../../canary": 3}}).encode()
    for method, path, body in [
        ("GET", f"/jobs/{ups}/checkpoints", b""),
        ("GET", f"/jobs/{ups}/checkpoints/1/files/canary", b""),
        ("GET", f"/jobs/job/checkpoints/1/files/{ups}", b""),
        ("GET", f"/jobs/job/checkpoints/{ups}/files/canary", b""),
        ("PUT", f"/jobs/{ups}/uploads/{UPLOAD}", b'{"step": 1, "files": {"canary": 3}}'),
        ("PUT", f"/jobs/job/uploads/{ups}", b'{"step": 1, "files": {"canary": 3}}'),
        ("PUT", "/jobs/job/uploads/" + "b" * 32, declared),
        ("PUT", f"/jobs/job/uploads/{UPLOAD}/files/{ups}", b"bad"),
        ("PUT", f"/jobs/job/uploads/{ups}/files/canary", b"bad"),
        ("DELETE", f"/jobs/job/uploads/{ups}", b""),
        ("DELETE", f"/jobs/job/checkpoints/{ups}", b""),
        ("POST", f"/jobs/{ups}/lease", b'{"holder": "a", "nonce": "b"}'),
        ("PUT", f"/{ups}", b"bad"),
        ("GET", f"/{ups}", b""),
    ]:
        request = f"{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
        request += f"Authorization: Bearer {TOKEN}\r\nContent-Length: {len(body)}\r\n\r\n"
        answer = raw(shared, request.encode("latin-1") + body)
        assert answer.split(b" ")[1][:1] == b"4", (method, path, answer)
    assert canary.read_text() == "as it was"
    assert tree(shared.root.parent) == before
    give_up(shared)


def test_a_link_that_somebody_put_into_the_root_is_not_followed(tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("secret")
    with RunningService(tmp_path) as service, service.store() as store:
        put = store.put(1, model(tmp_path))
        path = service.root / "job" / "step-00000001" / "model.ckpt"
        path.unlink()
        path.symlink_to(secret)
        status, answer = service.ask("GET", "/jobs/job/checkpoints/1/files/model.ckpt")
        assert b"secret" not in answer
        assert status == 410
        assert put.step == 1


# What it takes.


def test_a_file_has_to_be_as_long_as_was_said(shared):
    assert begin(shared, 5)[0] == 201
    for body, more, status in [
        (b"hello!", {}, 413),
        (b"hell", {}, 400),
        (b"llo", {"Content_Range": "bytes 2-4/5"}, 409),
        (b"hello", {"Content_Range": "bytes 0-4/6"}, 400),
        (b"hello", {"Content_Range": "bytes 1-5/5"}, 400),
        (b"hello", {"Content_Range": "words 0-4/5"}, 400),
        (b"hello", {"Content_Encoding": "gzip"}, 415),
    ]:
        got, answer = shared.ask("PUT", FILE, body, **more)
        assert (got, bool(sentence(answer))) == (status, True), (body, more)
    chunked = head("PUT", FILE, "Transfer-Encoding: chunked", "Connection: close")
    chunked = chunked.replace(b"Content-Length: 0\r\n", b"") + b"5\r\nhello\r\n0\r\n\r\n"
    assert b" 411 " in raw(shared, chunked).splitlines()[0]
    assert shared.ask("PUT", FILE, b"hello")[0] == 200
    give_up(shared)


def test_a_commit_is_conditional_and_checked(shared):
    assert begin(shared, 5)[0] == 201
    assert shared.ask("PUT", FILE, b"hellO")[0] == 200
    sha = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"
    files = {"model.ckpt": {"bytes": 5, "checksum": f"sha256:{sha}"}}
    sidecar = json.dumps({"schema": 2, "step": 1, "details": {}, "files": files}).encode()
    path = "/jobs/job/checkpoints/1"
    condition = {"If_None_Match": "*", "Upload_Id": UPLOAD}
    assert shared.ask("PUT", path, sidecar, Upload_Id=UPLOAD)[0] == 428
    assert shared.ask("PUT", path, b"{", **condition)[0] == 400
    assert shared.ask("PUT", "/jobs/job/checkpoints/2", sidecar, **condition)[0] == 400
    assert shared.ask("PUT", path, sidecar, **{**condition, "Upload_Id": "b" * 32})[0] == 404
    status, answer = shared.ask("PUT", path, sidecar, **condition)
    assert (status, "send it again" in sentence(answer)) == (422, True)
    assert json.loads(shared.ask("GET", "/jobs/job/checkpoints")[1])["checkpoints"] == []
    assert shared.ask("PUT", FILE, b"hello")[0] == 200
    assert shared.ask("PUT", path, sidecar, **condition)[0] == 201
    assert shared.ask("PUT", path, sidecar, **condition)[0] == 200  # the answer was lost
    assert shared.ask("GET", path + "/files/model.ckpt", Range="bytes=1-3") == (206, b"ell")
    assert shared.ask("GET", path + "/files/model.ckpt", Range="bytes=9-")[0] == 416
    assert shared.ask("DELETE", path)[0] == 200


SHA256 = "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"  # b"hello"
XXH3 = "xxh3:b5e9c1ad071b3e7fc779cfaa5e523818"


@pytest.mark.parametrize("recorded", [SHA256, XXH3])
@pytest.mark.parametrize(
    ("asked", "answered"),
    [
        ("", SHA256),
        ("?checksum=sha256", SHA256),
        ("?checksum=xxh3", XXH3),
        ("?checksum=later", None),
    ],
)
def test_a_client_may_ask_for_any_checksum_and_record_any(shared, asked, answered, recorded):
    path, condition = "/jobs/job/checkpoints/1", {"If_None_Match": "*", "Upload_Id": UPLOAD}
    assert begin(shared, 5)[0] == 201
    for sent, status in ((b"hellO", 422), (b"hello", 201)):
        got, answer = shared.ask("PUT", FILE + asked, sent)
        assert got == 200
        if sent == b"hello":
            assert json.loads(answer) == {"bytes": 5, "checksum": answered}
        files = {"model.ckpt": {"bytes": 5, "checksum": recorded}}
        sidecar = json.dumps({"schema": 2, "step": 1, "details": {}, "files": files}).encode()
        assert shared.ask("PUT", path, sidecar, **condition)[0] == status
    assert shared.ask("POST", path + "/verify", sidecar) == (200, b'{"valid": true}')
    assert shared.ask("DELETE", path)[0] == 200


def test_a_checksum_that_nobody_knows_is_refused_before_anything_is_received(shared):
    assert begin(shared, 5)[0] == 201
    for kind in ("blake9", "", "%00"):
        status, answer = shared.ask("PUT", FILE + "?checksum=" + kind, b"hello")
        assert (status, "knows xxh3, sha256" in sentence(answer)) == (400, True)
    give_up(shared)


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"{", b"\xff", b'{"step": 1}', b'{"step": 1, "files": {}}', b"[" * 100_000]
    + [
        json.dumps({"step": step, "files": files}).encode()
        for step, files in [
            *[(-1, {"m": 1}), (True, {"m": 1}), (10**18, {"m": 1}), ("1", {"m": 1})],
            *[(1, {"m": -1}), (1, {"m": 2**63}), (1, {"m": True}), (1, {"m": "1"})],
            *[(1, ["m"]), (1, {str(n): 1 for n in range(2000)})],
        ]
    ],
)
def test_an_upload_that_makes_no_sense_is_refused(shared, body):
    status, answer = shared.ask("PUT", f"/jobs/job/uploads/{UPLOAD}", body)
    assert (status, bool(sentence(answer))) == (400, True)


def test_wrong_methods_and_addresses_are_refused_with_a_sentence(shared):
    for method, path, status in [
        *[("PATCH", "/jobs/job/checkpoints", 405), ("POST", "/health", 405)],
        *[("GET", "/", 404), ("GET", "/jobs", 404), ("PROPFIND", "/metrics", 405)],
    ]:
        got, answer = shared.ask(method, path)
        assert (got, bool(sentence(answer))) == (status, True)


@pytest.mark.parametrize(
    "request_line",
    ["BREW / HTTP/1.1", "GET / HTTP/x", "\x16\x03\x01", "GET / HTTP/1.1\r\nContent-Length: x"],
)
def test_what_is_not_http_is_refused_with_a_sentence(shared, request_line):
    answer = raw(shared, request_line.encode("latin-1") + b"\r\n\r\n")
    assert b" 400 " in answer.splitlines()[0]
    assert "HTTP" in sentence(answer)
    assert "Traceback" not in shared.log.read_text()


def test_json_and_headers_have_a_most(shared):
    status, answer = shared.ask("PUT", f"/jobs/job/uploads/{UPLOAD}", b"x" * (5 << 20))
    assert (status, bool(sentence(answer))) == (413, True)
    assert b" 400 " in raw(shared, head("GET", "/health", "X: " + "x" * 20_000)).splitlines()[0]
    assert b" 400 " in raw(shared, b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\n\r\n").splitlines()[0]


def test_files_and_jobs_have_a_most(tmp_path):
    with RunningService(tmp_path, "--max-bytes", "30K", "--quota", "50K") as service:
        status, answer = begin(service, 30_001)
        assert (status, "--max-bytes" in answer["error"]) == (413, True)
        with service.store() as store:
            store.put(1, model(tmp_path, bytes(30_000)))
            with pytest.raises(OSError, match="30000 of 50000 bytes") as raised:
                store.put(2, model(tmp_path, bytes(20_001)))
            assert raised.value.errno == 122  # EDQUOT
            assert begin(service, 15_000, step=3)[0] == 201  # what is promised counts as well
            with pytest.raises(OSError, match="45000 of 50000"):
                store.put(2, model(tmp_path, bytes(5_001)))
            store.put(2, model(tmp_path, bytes(5_000)))
            store.delete(1)
            store.put(4, model(tmp_path, bytes(30_000)))
        with service.store("another") as store:
            store.put(1, model(tmp_path, bytes(30_000)))


def test_the_newest_is_fetched_in_one_reading(tmp_path):
    with RunningService(tmp_path) as service, service.store() as store:
        put = store.put(1, model(tmp_path, os.urandom(100_000)))
        assert store.fetch_newest_valid("model.ckpt", tmp_path / "here")[0] == put
        assert metrics(service)["sent_bytes_total"] == 100_000
        assert 'method="POST"' not in service.ask("GET", "/metrics")[1].decode()  # no verifying


def test_retention_is_the_services_if_it_is_told_so(tmp_path):
    with (
        RunningService(tmp_path, "--keep", "2", "--keep-every", "4") as service,
        service.store() as store,
    ):
        for step in range(1, 10):
            store.put(step, model(tmp_path))
        assert [each.step for each in store.list()] == [4, 8, 9]
        assert metrics(service)["deletions_total"] == 6


def metrics(service: RunningService) -> dict[str, float]:
    page = service.ask("GET", "/metrics")[1].decode()
    values = {}
    for line in page.splitlines():
        if not line.startswith("#"):
            name, value = line.rsplit(" ", 1)
            values[name.removeprefix("curitorch_store_")] = float(value)
    return values


def test_metrics_count_what_happens(tmp_path):
    with RunningService(tmp_path) as service, service.store() as store:
        put = store.put(1, model(tmp_path, bytes(1000)))
        store.fetch(put, "model.ckpt", tmp_path / "here")
        begin(service, 5, step=2)
        service.ask("GET", "/metrics", token="wrong")
        found = metrics(service)
        assert found["received_bytes_total"] == found["sent_bytes_total"] == 1000
        assert found["commits_total"] == found["checkpoints"] == found["uploads"] == 1
        assert found["stored_bytes"] == 1000
        assert found['refusals_total{kind="unauthorized"}'] == 1
        assert found['requests_total{method="GET",status="401"}'] == 1
        assert found["up_seconds"] > 0
        assert found["free_bytes"] > 0


# Slow, many, cut.


def test_a_body_that_drips_is_refused(shared):
    assert begin(shared, 10**6)[0] == 201
    with socket.create_connection(("127.0.0.1", shared.port), timeout=10) as connection:
        connection.sendall(head("PUT", FILE, length=10**6))
        started, answer = time.monotonic(), b""
        connection.settimeout(0.1)
        while b"\r\n\r\n" not in answer and time.monotonic() - started < 8:
            with contextlib.suppress(TimeoutError, ConnectionError):
                connection.sendall(b"x")
                answer += connection.recv(65536)
    assert b" 408 " in answer.splitlines()[0]
    assert "per second" in sentence(answer)
    assert time.monotonic() - started < 5
    give_up(shared)


@pytest.mark.parametrize("drips", [b"", b"GET /health HTTP/1.1\r\nX-A: ", b"PUT"])
def test_a_header_that_drips_or_never_comes_is_cut_off(shared, drips):
    with socket.create_connection(("127.0.0.1", shared.port), timeout=0.1) as connection:
        started = time.monotonic()
        connection.sendall(drips)
        while time.monotonic() - started < 8:
            try:
                if drips:
                    connection.sendall(b"x")
                if connection.recv(100) == b"":
                    break
            except TimeoutError:
                continue
            except ConnectionError:
                break
    assert time.monotonic() - started < 5


def test_json_that_drips_is_refused(shared):
    request = head("PUT", f"/jobs/job/uploads/{UPLOAD}", length=100) + b'{"step'
    answer = raw(shared, request, seconds=10)
    assert b" 408 " in answer.splitlines()[0]


def test_too_many_connections_are_turned_away_and_the_others_go_on(tmp_path):
    with RunningService(tmp_path, "--connections", "4") as service:
        store = service.store(tries=1)
        assert store.list() == []
        with contextlib.ExitStack() as stack:
            for _ in range(3):
                connection = socket.create_connection(("127.0.0.1", service.port), timeout=5)
                stack.enter_context(connection)
            time.sleep(0.2)
            answer = raw(service, b"")
            assert b" 503 " in answer.splitlines()[0]
            assert "most" in sentence(answer)
            assert store.list() == []  # on the connection that it has
        time.sleep(0.2)
        assert metrics(service)["turned_away_total"] == 1
        store.close()


class Proxy:
    """Passes bytes on; after each of `cuts` bytes from a client it calls `then` and cuts."""

    def __init__(self, port: int, cuts: list[int], then=lambda: None) -> None:
        self.target, self.cuts, self.then = port, list(cuts), then
        self.passed = 0
        self.back_cut: int | None = None
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self._listening.close()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listening.accept()
                try:
                    server = socket.create_connection(("127.0.0.1", self.target), timeout=10)
                except OSError:
                    client.close()
                    continue
                pair = (client, server)
                threading.Thread(target=self._up, args=pair, daemon=True).start()
                threading.Thread(target=self._down, args=pair, daemon=True).start()

    def _up(self, client, server):
        here = 0
        with contextlib.suppress(OSError):
            while data := client.recv(65536):
                if self.cuts and here + len(data) > self.cuts[0]:
                    server.sendall(data[: self.cuts[0] - here])
                    self.passed += max(0, self.cuts.pop(0) - here)
                    self.then()
                    self._shut(client, server)
                    return
                server.sendall(data)
                here += len(data)
                self.passed += len(data)
        self._shut(client, server)

    def _down(self, client, server):
        here = 0
        with contextlib.suppress(OSError):
            while data := server.recv(65536):
                here += len(data)
                if self.back_cut is not None and here > self.back_cut:
                    self.back_cut = None
                    break
                client.sendall(data)
        self._shut(client, server)

    @staticmethod
    def _shut(*sockets):
        for each in sockets:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)


def behind(proxy: Proxy, service: RunningService, **options) -> TcpStore:
    options = {"token_file": service.token_file, "timeout": 5.0, "tries": 5, **options}
    return TcpStore("job", "127.0.0.1", proxy.port, **options)


def test_an_upload_that_is_cut_goes_on_where_it_was_cut(tmp_path):
    size = 12_000_000
    files = model(tmp_path, os.urandom(size))
    with RunningService(tmp_path) as service:
        cuts = [4_000_000, 6_000_000, 1000, 300]
        with Proxy(service.port, cuts) as proxy, behind(proxy, service) as store:
            put = store.put(1, files)
            assert proxy.cuts == []
            assert size < proxy.passed < 1.5 * size
            assert store.newest_valid() == put


def test_a_download_that_is_cut_goes_on_where_it_was_cut(tmp_path):
    files = model(tmp_path, os.urandom(12_000_000))
    with RunningService(tmp_path) as service, Proxy(service.port, []) as proxy:
        with behind(proxy, service) as store:
            put = store.put(1, files)
            proxy.back_cut = 5_000_000
            fetched = store.fetch(put, "model.ckpt", tmp_path / "here")
            assert proxy.back_cut is None
            assert fetched.read_bytes() == files["model.ckpt"].read_bytes()
            assert list((tmp_path / "here").iterdir()) == [fetched]
        sent = metrics(service)["sent_bytes_total"]
        assert 12_000_000 < sent < 24_000_000


def test_kill_9_of_the_service_in_the_middle_of_an_upload_costs_what_was_on_the_way(tmp_path):
    size = 12_000_000
    files = model(tmp_path, os.urandom(size))
    with RunningService(tmp_path) as service:

        def restart():
            service.kill()
            service.start()

        with Proxy(service.port, [6_000_000], restart) as proxy:
            with behind(proxy, service, tries=10) as store, store.lease("node-a") as lease:
                put = store.put(1, files, lease=lease)
                assert store.newest_valid() == put
            assert proxy.passed < 1.6 * size
        assert sorted(tree(service.root / "job" / "uploads")) == []


def test_a_service_that_is_away_is_waited_for_up_to_a_limit(tmp_path):
    with RunningService(tmp_path) as service:
        store = service.store(tries=20)
        store.put(1, model(tmp_path))
        service.kill()
        with service.store(tries=2) as impatient:
            started = time.monotonic()
            with pytest.raises(StoreUnreachable, match=r"127\.0\.0\.1.*2 tries.*start the service"):
                impatient.put(2, model(tmp_path))
            assert time.monotonic() - started < 3
        later = threading.Timer(0.5, service.start)
        later.start()
        put = store.put(2, model(tmp_path))
        later.join()
        assert store.newest_valid() == put
        store.close()


@pytest.mark.slow
def test_kill_9_of_the_service_at_100_random_moments_loses_nothing_durable(tmp_path):
    files = model(tmp_path, os.urandom(2_000_000))
    moments = random.Random(100)
    with RunningService(tmp_path) as service:

        def kill_and_start():
            for _ in range(100):
                time.sleep(moments.uniform(0.0, 0.2))
                service.kill()
                service.start()

        killing = threading.Thread(target=kill_and_start)
        killing.start()
        step = 0
        with service.store(tries=100) as store:
            while killing.is_alive():
                step += 1
                put = store.put(step, files)
                assert store.newest_valid() == put
                if step > 2:
                    store.delete(step - 2)
        service.kill()
        service.start()
        assert {name for name in os.listdir(service.root / "job") if name.startswith("step")} == {
            name.format(number)
            for number in (step - 1, step)
            for name in ("step-{:08d}", "step-{:08d}.json")
        }
        assert list((service.root / "job" / "uploads").iterdir()) == []


# Starting and stopping.


def test_what_a_dead_service_left_half_done_is_gone_after_the_start(tmp_path):
    with RunningService(tmp_path) as service, service.store() as store:
        put = store.put(1, model(tmp_path))
        service.kill()
        job = service.root / "job"
        (job / "step-00000002").mkdir()  # killed between the files and the sidecar
        (job / "step-00000002" / "model.ckpt").write_text("x")
        (job / ".incomplete-77-abc.json").write_text("{")
        old = job / "uploads" / ("c" * 32) / "files"
        old.mkdir(parents=True)
        (old / "m").write_text("x")
        for path in (old / "m", old, old.parent):
            os.utime(path, (0, 0))
        service.start()
        assert store.newest_valid() == put
        assert tree(job) == {
            *("step-00000001", "step-00000001/model.ckpt", "step-00000001.json"),
            *("uploads", "changes"),
        }


def test_sigterm_lets_an_upload_under_way_finish(tmp_path):
    with RunningService(tmp_path) as service:
        assert begin(service, 1000)[0] == 201
        with socket.create_connection(("127.0.0.1", service.port), timeout=5) as connection:
            connection.sendall(head("PUT", FILE, length=1000) + bytes(500))
            time.sleep(0.2)
            service.terminate(wait=False)
            time.sleep(0.3)
            assert service.ask("GET", "/health", token=None)[0] == 503
            status, answer = begin(service, 1000, job="another")
            assert (status, "stopping" in answer["error"]) == (503, True)
            connection.sendall(bytes(500))
            assert b" 200 " in answer_on(connection).splitlines()[0]
        assert b" 201 " in raw(service, commit_of_zeros(1000)).splitlines()[0]
        assert service.wait() == 0
        service.start()
        with service.store() as store:
            assert [each.bytes for each in store.list()] == [1000]


def commit_of_zeros(size: int) -> bytes:
    checksum = "sha256:" + hashlib.sha256(bytes(size)).hexdigest()
    files = {"model.ckpt": {"bytes": size, "checksum": checksum}}
    body = json.dumps({"schema": 2, "step": 1, "details": {}, "files": files}).encode()
    more = ("If-None-Match: *", f"Upload-Id: {UPLOAD}")
    return head("PUT", "/jobs/job/checkpoints/1", *more, length=len(body)) + body


def test_sigterm_waits_no_longer_than_it_was_told(tmp_path):
    with RunningService(tmp_path, "--grace", "0.5") as service:
        assert begin(service, 1000)[0] == 201
        with socket.create_connection(("127.0.0.1", service.port), timeout=5) as connection:
            connection.sendall(head("PUT", FILE, length=1000) + bytes(500))
            time.sleep(0.2)
            started = time.monotonic()
            assert service.terminate() == 0
            assert 0.4 < time.monotonic() - started < 5
        service.start()
        assert service.ask("HEAD", FILE)[0] == 200
        size = (service.root / "job" / "uploads" / UPLOAD / "files" / "model.ckpt").stat().st_size
        assert size == 500  # to go on from there


def test_a_second_sigterm_ends_it_at_once(tmp_path):
    with RunningService(tmp_path, "--grace", "60") as service:
        assert begin(service, 1000)[0] == 201
        service.terminate(wait=False)
        time.sleep(0.3)
        os.kill(service.pid, signal.SIGTERM)
        started = time.monotonic()
        service.wait()
        assert time.monotonic() - started < 5


# Leases.


def test_a_lease_that_ran_out_is_free_and_its_writer_is_locked_out(tmp_path):
    with RunningService(tmp_path, "--lease-seconds", "0.4") as service, service.store() as store:
        path, body = "/jobs/job/lease", b'{"holder": "node-a", "nonce": "1"}'
        status, answer = service.ask("POST", path, body)
        old = Lease("node-a", json.loads(answer)["token"])
        assert (status, service.ask("POST", path, body)[1]) == (201, answer)  # asked again
        other = b'{"holder": "node-b", "nonce": "2"}'
        assert service.ask("POST", path, other)[0] == 409
        store.put(1, model(tmp_path), lease=old)
        time.sleep(0.5)
        assert service.ask("PUT", path, Fencing_Token=str(old.token))[0] == 200  # nobody took it
        time.sleep(0.5)
        with store.lease("node-b") as new:
            assert new.token > old.token
            with pytest.raises(LeaseLost):
                store.put(2, model(tmp_path), lease=old)
            with pytest.raises(LeaseLost):
                store.delete(1, lease=old)
            assert service.ask("PUT", path, Fencing_Token=str(old.token))[0] == 409
            time.sleep(0.7)  # it is renewed
            store.put(2, model(tmp_path), lease=new)
        assert [each.step for each in store.list()] == [1, 2]


def test_the_lease_of_a_dead_holder_is_waited_for_and_that_of_a_living_one_is_not(tmp_path):
    with RunningService(tmp_path, "--lease-seconds", "1.5") as service, service.store() as store:
        service.ask("POST", "/jobs/job/lease", b'{"holder": "dead", "nonce": "1"}')
        with (
            pytest.warns(UserWarning, match="whether the holder lives: 'dead' holds the lease"),
            store.lease("node-b"),
            service.store() as another,
            pytest.warns(UserWarning, match="'node-b' holds the lease"),
            pytest.raises(LeaseLost, match="'node-b' holds the lease"),
            another.lease("node-c"),
        ):
            pass


def test_an_upload_that_was_overtaken_on_the_way_is_not_committed(tmp_path):
    files = model(tmp_path, os.urandom(2_000_000))
    with RunningService(tmp_path, "--lease-seconds", "0.3") as service:
        lease = json.loads(
            service.ask("POST", "/jobs/job/lease", b'{"holder": "node-a", "nonce": "1"}')[1]
        )
        taken = []

        def overtake():
            time.sleep(0.4)
            body = b'{"holder": "node-b", "nonce": "2"}'
            taken.append(service.ask("POST", "/jobs/job/lease", body)[0])

        with (
            Proxy(service.port, [1_000_000], overtake) as proxy,
            behind(proxy, service, tries=8) as store,
        ):
            with pytest.raises(LeaseLost, match="node-b"):
                store.put(1, files, lease=Lease("node-a", lease["token"]))
            assert taken == [201]
            assert store.list() == []


def test_leases_outlive_the_service(tmp_path):
    with RunningService(tmp_path, "--lease-seconds", "2") as service, service.store() as store:
        with store.lease("node-a") as lease:
            service.kill()
            service.start()
            with pytest.raises(LeaseLost, match="node-a"), store.lease("node-b"):
                pass
            store.put(1, model(tmp_path), lease=lease)
        with store.lease("node-b") as newer:
            assert newer.token == lease.token + 1


def test_no_wall_clock_decides_about_a_lease(tmp_path, monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(time, "time", lambda: 0.0)
    lease = JobLease(tmp_path, seconds=10, clock=lambda: now[0])
    first = lease.acquire("a", "1")
    now[0] += 9.9
    with pytest.raises(Refusal, match="'a' holds"):
        lease.acquire("b", "2")
    now[0] += 0.2
    assert lease.acquire("b", "2").token == first.token + 1
    with pytest.raises(Refusal):
        lease.renew(first.token)
    lease.release(first.token)
    assert lease.is_held()
    lease.release(first.token + 1)
    assert lease.acquire("c", "3").token == first.token + 2
