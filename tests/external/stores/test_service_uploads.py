"""The TCP store's service: what it takes, and what it tells."""

import json
import os

import pytest

from curitorch.external.stores.testing.running_service import RunningService
from tests.external.stores.service_requests import (
    FILE,
    UPLOAD,
    begin,
    give_up,
    head,
    metrics,
    model,
    raw,
    sentence,
)


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
