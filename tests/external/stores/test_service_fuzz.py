"""The TCP store's service is asked anything at all: it answers, and never leaves its root."""

import contextlib
import json
import os
import re
import socket
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from curitorch.external.stores.store import check_name
from curitorch.external.stores.testing.running_service import TOKEN, RunningService

UPLOAD = "a" * 32
FILE = f"/jobs/job/uploads/{UPLOAD}/files/model.ckpt"


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    with RunningService(tmp_path_factory.mktemp("service")) as service:
        yield service


def ask(service: RunningService, data: bytes) -> bytes:
    """Send bytes as they are, and then no more; returns what comes until the connection ends."""
    got = b""
    with socket.create_connection(("127.0.0.1", service.port), timeout=60) as connection:
        with contextlib.suppress(ConnectionError):
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
        with contextlib.suppress(ConnectionError):
            while piece := connection.recv(65536):
                got += piece
    return got


def tree(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def outside(service: RunningService) -> set[str]:
    return {name for name in tree(service.root.parent) if not name.startswith("root")}


def check(service: RunningService, answer: bytes, before: set[str]) -> None:
    """Check that each answer is one, of no failure, and that nothing lies where it should not."""
    for status in re.findall(rb"^HTTP/\d\.\d (\d+) ", answer, re.MULTILINE):
        assert 100 <= int(status) < 500, answer
    assert not answer or answer.startswith(b"HTTP/")
    assert service.ask("GET", "/health")[0] == 200
    assert outside(service) == before
    for name in set(os.listdir(service.root)) - {".service.lock"}:
        check_name(name, what="Job")
    assert "Traceback" not in service.log.read_text()


PIECES = st.one_of(
    st.sampled_from(["jobs", "job", "uploads", UPLOAD, "files", "model.ckpt", "checkpoints"]),
    st.sampled_from(["1", "lease", "verify", "health", "metrics", "..", "%2e%2e", "%00", ""]),
    st.text(st.characters(codec="latin-1", exclude_characters=" \r\n?#"), max_size=10),
)
PATHS = st.one_of(
    st.lists(PIECES, max_size=7).map(lambda pieces: "/" + "/".join(pieces)),
    st.sampled_from([FILE, f"/jobs/job/uploads/{UPLOAD}", "/jobs/job/lease"]),
    st.sampled_from(["/jobs/job/checkpoints/1", "/jobs/job/checkpoints/1/verify"]),
)
VALUES = st.one_of(
    st.sampled_from(["*", UPLOAD, "1", "-1", "bytes=0-", "bytes=-5", "bytes=5-1,7-", "identity"]),
    st.sampled_from(["bytes 0-4/5", "bytes */5", "bytes 9-1/5", "chunked", "gzip", "100-continue"]),
    st.text(st.characters(codec="latin-1", exclude_characters="\r\n\0"), max_size=20),
)
NAMES = st.sampled_from(
    [
        *("If-None-Match", "Upload-Id", "Fencing-Token", "Range", "Content-Range", "Expect"),
        *("Content-Type", "Content-Encoding", "If-Range", "Accept-Encoding", "X-Any", "Upgrade"),
        *("If-Match", "If-Modified-Since", "Cookie", "Connection", "Transfer-Encoding"),
    ]
)
JSONS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["schema", "step", "files", "details", "holder", "nonce", "m", "bytes"]
            ),
            inner,
            max_size=5,
        )
    ),
    max_leaves=10,
)
BODIES = st.one_of(
    st.binary(max_size=200),
    JSONS.map(lambda record: json.dumps(record).encode()),
    st.sampled_from(
        [
            b'{"step": 1, "files": {"model.ckpt": 5}}',
            b'{"holder": "a", "nonce": "1"}',
            b"hello",
            b'{"schema": 2, "step": 1, "details": {}, "files": {"model.ckpt": {"bytes": 5, '
            b'"checksum": "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"'
            b"}}}",
        ]
    ),
)


QUICK = settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    max_examples=300,
)


@QUICK
@given(
    method=st.sampled_from(["GET", "HEAD", "PUT", "POST", "DELETE", "OPTIONS", "PATCH", "TRACE"]),
    path=PATHS,
    headers=st.lists(st.tuples(NAMES, VALUES), max_size=4),
    body=BODIES,
)
def test_whatever_is_asked_it_never_fails_and_never_leaves_its_root(
    service, method, path, headers, body
):
    before = outside(service)
    request = f"{method} {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n"
    request += f"Content-Length: {len(body)}\r\n"
    request += "".join(f"{name}: {value}\r\n" for name, value in headers)
    request += "Connection: close\r\n\r\n"
    check(service, ask(service, request.encode("latin-1") + body), before)


def whole_requests() -> list[bytes]:
    """What a client sends for a checkpoint of five bytes, from the lease to the deletion."""
    checksum = "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"
    sidecar = {"schema": 2, "step": 1, "details": {}}
    sidecar["files"] = {"model.ckpt": {"bytes": 5, "checksum": checksum}}
    commit = f"If-None-Match: *\r\nUpload-Id: {UPLOAD}\r\n"
    rest = "Content-Range: bytes 2-4/5\r\n"
    requests = []
    for method, path, more, body in [
        ("POST", "/jobs/job/lease", "", '{"holder": "a", "nonce": "1"}'),
        ("PUT", f"/jobs/job/uploads/{UPLOAD}", "", '{"step": 1, "files": {"model.ckpt": 5}}'),
        ("PUT", FILE, "", "hello"),
        ("HEAD", FILE, "", ""),
        ("PUT", FILE + "?checksum=sha256", rest, "llo"),
        ("PUT", "/jobs/job/checkpoints/1", commit, json.dumps(sidecar)),
        ("GET", "/jobs/job/checkpoints", "", ""),
        ("GET", "/jobs/job/checkpoints/1/files/model.ckpt", "Range: bytes=1-3\r\n", ""),
        ("POST", "/jobs/job/checkpoints/1/verify", "", json.dumps(sidecar)),
        ("PUT", "/jobs/job/lease", "Fencing-Token: 1\r\n", ""),
        ("DELETE", "/jobs/job/checkpoints/1", "Fencing-Token: 1\r\n", ""),
    ]:
        head = f"{method} {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n"
        head += f"{more}Content-Length: {len(body)}\r\n\r\n"
        requests.append((head + body).encode())
    return requests


@QUICK
@given(st.data())
def test_whatever_becomes_of_requests_on_their_way_it_never_fails(service, data):
    """Bytes are lost, doubled, altered or swapped, requests cut off or run together."""
    wire = b"".join(data.draw(st.lists(st.sampled_from(whole_requests()), min_size=1, max_size=4)))
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(wire)))
        end = data.draw(st.integers(start, min(len(wire), start + 40)))
        new = data.draw(
            st.one_of(
                st.just(b""), st.binary(max_size=20), st.just(wire[start:end] * 2), st.just(b"\r\n")
            )
        )
        wire = wire[:start] + new + wire[end:]
    before = outside(service)
    check(service, ask(service, wire), before)


@QUICK
@given(st.binary(max_size=300))
def test_bytes_that_are_no_request_at_all_do_no_harm(service, wire):
    before = outside(service)
    check(service, ask(service, wire), before)
