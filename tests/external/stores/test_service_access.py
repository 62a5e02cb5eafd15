"""The TCP store's service: whom it lets in, and that no name leads out of its root."""

import json
import os

import pytest

from curitorch.external.stores.store import (
    StoreError,
)
from curitorch.external.stores.tcp.exchange import Exchange
from curitorch.external.stores.testing.running_service import TOKEN, RunningService
from tests.external.stores.service_proxy import Proxy, behind
from tests.external.stores.service_requests import (
    FILE,
    UPLOAD,
    begin,
    give_up,
    head,
    model,
    raw,
    sentence,
    tree,
)


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
            longer = "x" * len(rotated)  # the clock of files does not tell them apart by itself
            service.token_file.write_text(f"the-token-that-is-{longer}")
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
