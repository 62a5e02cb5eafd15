"""Whatever stands in a file, an answer or a setting is understood, or refused with one sentence.

Sidecars and settings have such tests in their own files.
"""

import asyncio
import contextlib
import json
from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from curitorch.external.schema import UnreadableFile
from curitorch.external.stores.byte_count import parse_bytes
from curitorch.external.stores.local.lease_file import LeaseFile
from curitorch.external.stores.s3.client import _parse
from curitorch.external.stores.s3.lease_object import read_lease
from curitorch.external.stores.service.asking import json_body, offset_of
from curitorch.external.stores.service.leases import JobLease
from curitorch.external.stores.service.refusal import Refusal
from curitorch.external.stores.service.tokens import BadTokenFile, read_tokens
from curitorch.external.stores.service.uploads import parse_declaration
from curitorch.external.stores.sidecar import folder_name, step_of
from curitorch.external.stores.single_file import read as read_single
from curitorch.external.stores.spool.leases import SpoolLeases
from curitorch.external.stores.spool.pruning import SpoolPruning
from curitorch.external.stores.store import Lease, LeaseLost, check_name
from curitorch.external.stores.tcp.token_source import token_source

WORDS = ["schema", "step", "files", "details", "holder", "token", "nonce", "held", "seconds"]
WORDS += ["first", "newest", "lost", "why", "retention", "lease", "every", "best", "mode", "m"]
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from([0, 1, 2, 99, 2**63, "min", "1", "m"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(WORDS) | st.text(max_size=3), inner, max_size=8)
    ),
    max_leaves=12,
)


class Deep(bytes):
    def __repr__(self):
        return "b'[' * 100_000"


CONTENT = st.one_of(
    JSON.map(lambda value: json.dumps(value).encode()),
    st.dictionaries(st.sampled_from(WORDS), JSON).map(
        lambda record: json.dumps({"schema": 1, **record}).encode()
    ),
    st.binary(max_size=60),
    st.just(Deep(b"[" * 100_000)),
)
quickly = settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    max_examples=100,
)


@contextlib.contextmanager
def understood_or(*errors):
    """Nothing else may be raised, and what is said is one line."""
    try:
        yield
    except errors as error:
        assert str(error)
        assert "\n" not in str(error)


@quickly
@given(CONTENT)
def test_the_record_of_a_local_lease(tmp_path, content):
    leases = LeaseFile(tmp_path, contextlib.nullcontext)
    (tmp_path / "lease.json").write_bytes(content)
    with understood_or(LeaseLost, UnreadableFile):
        leases.check(Lease("a", 1))
    with understood_or(UnreadableFile), leases.hold("a") as lease:
        assert lease.token > 0


@quickly
@given(CONTENT)
def test_the_record_of_a_services_lease(tmp_path, content):
    (tmp_path / "service-lease.json").write_bytes(content)
    with understood_or(UnreadableFile):
        lease = JobLease(tmp_path, seconds=1)
        with understood_or(Refusal):
            lease.acquire("a", "1")


@quickly
@given(CONTENT)
def test_the_record_of_a_lease_on_s3(content):
    bucket = SimpleNamespace(read=lambda key: content, address=lambda key: f"s3://bucket/{key}")
    with understood_or(UnreadableFile):
        holder, seconds = read_lease(bucket, "lease-00000001.json")
        assert (isinstance(holder, str), 0 <= seconds <= 3600) == (True, True)


@quickly
@given(CONTENT)
def test_what_a_spool_remembers(tmp_path, content):
    for name in ("leases.json", "prune.json"):
        (tmp_path / name).write_bytes(content)
    leases, pruning = SpoolLeases(tmp_path / "leases.json"), SpoolPruning(tmp_path / "prune.json")
    with understood_or(LeaseLost):
        leases.check(Lease("a", 1))
    assert leases.heir(Lease("a", 1)).holder == "a"
    leases.taken(Lease("a", 7))
    assert leases.heir(Lease("a", 7)) == Lease("a", 7)
    request = pruning.asked()
    assert request is None or request.retention.keep([]) == set()


@quickly
@given(CONTENT)
def test_the_sidecar_of_a_single_file(tmp_path, content):
    (tmp_path / "best.ckpt").write_bytes(b"x")
    (tmp_path / "best.json").write_bytes(content)
    with understood_or(UnreadableFile):
        read_single(tmp_path / "best.ckpt")


@quickly
@given(st.one_of(st.binary(max_size=100), st.text(max_size=100).map(str.encode)))
def test_token_files_of_either_end(tmp_path, content):
    path = tmp_path / "token"
    path.write_bytes(content)
    with understood_or(BadTokenFile):
        assert all(len(digest) == 32 for digest in read_tokens(path))
    with understood_or(OSError, UnicodeDecodeError):
        assert token_source(None, path)().split() != []


@quickly
@given(CONTENT)
def test_the_declaration_of_an_upload(content):
    class Body:
        async def read(self):
            return content

    with understood_or(Refusal):
        record = asyncio.run(json_body(Body(), 5))
        with understood_or(ValueError):
            step, sizes = parse_declaration(record)
            assert step >= 0
            assert all(size >= 0 and check_name(name, what="File") for name, size in sizes.items())


RANGES = st.one_of(
    st.from_regex(r"bytes ([0-9]{1,20}-[0-9]{1,20}|\*)/[0-9]{1,20}"), st.text(max_size=30)
)


@quickly
@given(RANGES, st.integers(0, 100), st.one_of(st.none(), st.integers(0, 100)))
def test_where_a_body_belongs_in_its_file(said, size, length):
    request = SimpleNamespace(headers={"Content-Range": said}, content_length=length)
    with understood_or(Refusal):
        offset = offset_of(request, size)
        assert offset + length == size
        assert offset >= 0


@quickly
@given(st.text(max_size=30))
def test_numbers_of_bytes(text):
    with understood_or(ValueError):
        assert 1 <= parse_bytes(text) < 2**62


@quickly
@given(
    st.one_of(st.text(max_size=40), st.text(max_size=40).map(lambda rest: f"s3://bucket/{rest}"))
)
def test_roots_on_s3(root):
    with understood_or(ValueError):
        bucket, prefix = _parse(root)
        assert bucket
        assert prefix == "" or (prefix.endswith("/") and ".." not in prefix.split("/"))


@quickly
@given(st.one_of(st.text(max_size=40), st.integers(0, 2**63 - 1).map(lambda step: f"step-{step}")))
def test_names_of_files_and_folders(name):
    step = step_of(name)
    assert step is None or folder_name(step) == name.removesuffix(".json")
    with understood_or(ValueError):
        assert check_name(name, what="File") not in ("", ".", "..")


@pytest.mark.parametrize(
    "name", ["step-00000001\n", "step-\u0660" + "0" * 7, "step-00000001.json.json"]
)
def test_names_that_only_look_like_a_steps(name):
    assert step_of(name) is None
