"""S3Store against a real server: OpenStack Swift."""

import contextlib
import copy
import datetime
import functools
import json
import os
import resource
import secrets
import signal
import subprocess
import sys
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor

import boto3
import botocore.auth
import botocore.compat
import botocore.session
import pytest

from curitorch.external.schema import UnreadableFile
from curitorch.external.stores import open_store
from curitorch.external.stores.s3 import S3Store, commits, s3_lease
from curitorch.external.stores.s3 import sweep as s3_sweep
from curitorch.external.stores.s3.bucket import S3Bucket
from curitorch.external.stores.store import (
    CheckpointExists,
    LeaseLost,
    StoredCheckpoint,
    StoredFile,
    StoreError,
    StoreUnreachable,
)
from curitorch.external.stores.testing import StoreContract
from tests.external.stores.cutting_proxy import cutting_proxy
from tests.external.stores.older_records import OlderRecords
from tests.external.stores.swift import running_swift

BUCKET = "checkpoints"
MB = 1 << 20
SETTINGS = {"part_bytes": 5 * MB, "lease_seconds": 6, "timeout": 60}
SETTLE = 4.0  # seconds that a write of a loaded server may take
WAIT_FOR_THE_DEAD = ("test_kill_9_loses", "test_kill_9_at_many", "test_a_dead_holders_lease")
"""Tests in which a dead holder's lease has to run out, and that of a living one never counts."""


@pytest.fixture(scope="module")
def server():
    with running_swift() as server, pytest.MonkeyPatch.context() as environment:
        for name, value in server.credentials.items():
            environment.setenv(name, value)
        environment.setenv("AWS_CONFIG_FILE", "/nonexistent")
        environment.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
        environment.setenv("AWS_EC2_METADATA_DISABLED", "true")
        load_once = functools.cache(botocore.session.create_loader)  # 60 ms for each store
        environment.setattr(botocore.session, "create_loader", load_once)
        for module in (commits, s3_lease):
            environment.setattr(module, "_SETTLE", SETTLE)
        yield server


@pytest.fixture(scope="module")
def client(server):
    """The bucket behind the store's back."""
    client = boto3.client("s3", endpoint_url=server.endpoint_url, region_name=server.region)
    client.create_bucket(Bucket=BUCKET)
    return client


@pytest.fixture
def root(client):
    return f"s3://{BUCKET}/job '{secrets.token_hex(4)}', $HOME = ü/run"


class TestS3Store(StoreContract, OlderRecords):
    KILLS = 1
    LANES = 4
    LEASE_SECONDS = 60.0
    LEASE_RUNS_OUT_SECONDS = 3.0

    @pytest.fixture
    def recipe(self, server, client, root, request):
        self.client, self.server, self.root = client, server, root
        self.seconds = 1.5 if request.node.name.startswith(WAIT_FOR_THE_DEAD) else 6
        return self.opened

    @property
    def opened(self):
        url = self.server.endpoint_url
        return "s3", f'root="{self.root}",endpoint_url={url},lease_seconds={self.seconds}'

    @property
    def prefix(self):
        return prefix_of(self.root)

    def another(self, name):
        beside = copy.copy(self)
        beside.root = f"{self.root} {name}"
        return beside, beside.opened

    @pytest.mark.slow
    def test_readers_see_whole_checkpoints_while_one_writes_and_prunes(
        self, store, recipe, tmp_path
    ):
        super().test_readers_see_whole_checkpoints_while_one_writes_and_prunes(
            store, recipe, tmp_path
        )

    def damage(self, checkpoint, name, content):
        key = f"{self.prefix}step-{checkpoint.step:08d}/{checkpoint.upload}/{name}"
        if content is None:
            self.client.delete_object(Bucket=BUCKET, Key=key)
        else:
            self.client.put_object(Bucket=BUCKET, Key=key, Body=content)

    def damage_sidecar(self, step, content):
        key = f"{self.prefix}step-{step:08d}.json"
        self.client.put_object(Bucket=BUCKET, Key=key, Body=content)

    def leftovers(self):
        return leftovers(self.client, self.prefix)


def prefix_of(root):
    return root.removeprefix(f"s3://{BUCKET}/") + "/"


def keys(client, prefix):
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=prefix)
    return [entry["Key"] for page in pages for entry in page.get("Contents", [])]


def leftovers(client, prefix):
    """What no sidecar names, unfinished uploads too; one lease, the newest, is no leftover."""
    found = [key.removeprefix(prefix) for key in keys(client, prefix)]
    named = set()
    for key in found:
        if key.startswith("step-") and "/" not in key:
            body = client.get_object(Bucket=BUCKET, Key=prefix + key)["Body"].read()
            upload = json.loads(body)["upload"]
            named |= {key} | {f"{key[:-5]}/{upload}/{name}" for name in json.loads(body)["files"]}
    leases = sorted(key for key in found if key.startswith("lease-0"))
    return sorted(set(found) - named - set(leases[-1:])) + unfinished(client, prefix)


def unfinished(client, prefix):
    uploads = client.list_multipart_uploads(Bucket=BUCKET, Prefix=prefix).get("Uploads", [])
    return [each["Key"] for each in uploads]


@pytest.fixture
def open_s3(server, root):
    """Opens stores of the test's root; other settings than the usual ones as arguments."""
    with contextlib.ExitStack() as stores:
        yield lambda **settings: stores.enter_context(
            S3Store(**{"root": root, "endpoint_url": server.endpoint_url, **SETTINGS, **settings})
        )


@pytest.fixture
def proxy(server):
    with cutting_proxy(server.port) as proxy:
        proxy.url = f"http://127.0.0.1:{proxy.port}"
        yield proxy


def file(path, content):
    path.write_bytes(content)
    return path


def test_a_file_larger_than_a_part_goes_up_in_parts_and_comes_back(open_s3, client, root, tmp_path):
    content = os.urandom(12 * MB + 1)
    put = open_s3().put(3, {"m": file(tmp_path / "m", content)})
    key = f"{prefix_of(root)}step-00000003/{put.upload}/m"
    assert client.head_object(Bucket=BUCKET, Key=key)["ETag"].endswith('-3"')
    fresh = open_s3()
    fresh.verify(put)
    assert fresh.fetch(put, "m", tmp_path / "here").read_bytes() == content
    assert leftovers(client, prefix_of(root)) == []


def test_of_two_writers_with_all_files_there_the_first_sidecar_counts(
    open_s3, client, root, tmp_path, monkeypatch
):
    both, one_at_a_time, create = threading.Barrier(2), threading.Lock(), S3Bucket.create

    def create_when_both_are_there(bucket, key, data):
        both.wait()
        with one_at_a_time:  # Swift's condition is not atomic, Amazon's is
            return create(bucket, key, data)

    monkeypatch.setattr(S3Bucket, "create", create_when_both_are_there)

    def put(number):
        try:
            return open_s3().put(1, {"m": file(tmp_path / f"{number}", bytes([number]) * 1000)})
        except CheckpointExists:
            return None

    with ThreadPoolExecutor(2) as threads:
        results = list(threads.map(put, (1, 2)))
    [won] = [result for result in results if result is not None]
    assert open_s3().newest_valid() == won
    assert leftovers(client, prefix_of(root)) == []


def test_two_that_put_the_same_checkpoint_at_once_both_succeed(open_s3, client, root, tmp_path):
    source = file(tmp_path / "m", b"same")
    with ThreadPoolExecutor(2) as threads:
        first, second = threads.map(lambda _: open_s3().put(1, {"m": source}), range(2))
    assert first == second
    assert open_s3().list() == [first]
    assert leftovers(client, prefix_of(root)) == []


def test_an_error_after_the_sidecar_is_there_leaves_the_checkpoint_as_it_is(
    open_s3, tmp_path, monkeypatch
):
    store = open_s3()
    with monkeypatch.context() as patched, pytest.raises(StoreError, match="not allowed"):
        patched.setattr(store._bucket, "list", raise_not_allowed)
        store.put(1, {"m": file(tmp_path / "m", b"x")})
    newest = open_s3().newest_valid()
    assert newest is not None
    assert newest.step == 1


def raise_not_allowed(start):
    raise StoreError("not allowed")


def test_of_several_that_lease_at_once_at_most_one_gets_it(open_s3):
    def lease(number):
        try:
            with open_s3().lease(f"node-{number}") as lease:
                everybody_has_tried.wait(120)
                return lease
        except LeaseLost:
            return None
        finally:
            with lock:
                tried.append(number)
                if len(tried) == 3:
                    everybody_has_tried.set()

    tried, lock, everybody_has_tried = [], threading.Lock(), threading.Event()
    with ThreadPoolExecutor(4) as threads:
        assert len([lease for lease in threads.map(lease, range(4)) if lease]) == 1


REFUSALS = {
    "wrong secret": ({}, {"AWS_SECRET_ACCESS_KEY": "wrong"}, StoreError, "secret key is wrong"),
    "wrong key": ({}, {"AWS_ACCESS_KEY_ID": "no:body"}, StoreError, "key is wrong|not known"),
    "no bucket": ({"root": "s3://nonesuch/job"}, {}, StoreError, "no bucket 'nonesuch'"),
    "nobody there": (
        {"endpoint_url": "http://127.0.0.1:1", "attempts": 1},
        {},
        StoreUnreachable,
        "127.0.0.1:1",
    ),
    "unknown host": (
        {"endpoint_url": "http://no.invalid", "attempts": 2},
        {},
        StoreUnreachable,
        "no.invalid",
    ),
}


@pytest.mark.parametrize("which", REFUSALS)
def test_what_is_wrong_is_said_in_one_sentence(open_s3, tmp_path, monkeypatch, which):
    settings, environment, kind, words = REFUSALS[which]
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    store = open_s3(**settings)
    source = file(tmp_path / "m", b"x")
    for call in (
        store.list,
        store.newest_valid,
        lambda: store.put(1, {"m": source}),
        lambda: store.delete(1),
        lambda: store.lease("node-a").__enter__(),
        lambda: store.fetch(StoredCheckpoint(1, {"m": StoredFile(1, "sha256:00")}), "m", tmp_path),
    ):
        with pytest.raises(kind, match=words) as raised:
            call()
        assert type(raised.value) is kind
        assert "\n" not in str(raised.value)


def test_without_credentials_it_says_where_they_go(open_s3, monkeypatch):
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(StoreError, match=r"no credentials\. Set AWS_ACCESS_KEY_ID"):
        open_s3().list()


def test_a_profile_that_is_not_there_is_refused(open_s3):
    with pytest.raises(StoreError, match="somebody"):
        open_s3(profile="somebody")


@pytest.mark.parametrize(
    "wrong",
    [
        *({"root": root} for root in ("", "/data", "s3://", "s3:///job", "http://bucket/job")),
        *({"root": f"s3://bucket/{job}"} for job in ("a//b", "../up", "a/./b", "a\nb", "ü" * 400)),
        *({"root": root} for root in ("s3://b?cket/job", "s3://-bucket", "s3://a/b", "s3://../b")),
        *({"timeout": 0}, {"attempts": 0}, {"part_bytes": 1}),
        *({"lease_seconds": 0.5}, {"lease_seconds": float("nan")}, {"lease_seconds": 1e6}),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(wrong):
    with pytest.raises(ValueError, match=r"root|expected"):
        S3Store(**{"root": "s3://bucket/job", **wrong})


def test_without_boto3_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "boto3", None)
    with pytest.raises(ModuleNotFoundError, match=r'pip install "curitorch\[s3\]"'):
        open_store("s3", "root=s3://bucket/job")


def test_a_store_that_is_imported_brings_no_torch_and_no_boto3():
    program = (
        "import sys, curitorch.external.stores.s3\n"
        "print([name for name in ('torch', 'boto3', 'aiohttp') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr


@pytest.mark.parametrize("size", [1000, pytest.param(12 * MB, marks=pytest.mark.slow)])
def test_a_connection_that_is_cut_once_does_no_harm(open_s3, proxy, tmp_path, size):
    content = os.urandom(size)
    store = open_s3(endpoint_url=proxy.url)
    for request, after in ((b"PUT ", 0), (b"PUT ", 30)):
        proxy.cut(request=request, times=1, after=after)
        put = store.put(after, {"m": file(tmp_path / "m", content)})
    for after in (0, 20, size // 3):
        proxy.cut(request=b"GET ", times=1, after=after)
        assert open_s3(endpoint_url=proxy.url).newest_valid() == put
        proxy.cut(request=b"/m HTTP", times=1, after=after)
        fresh = open_s3(endpoint_url=proxy.url)
        assert fresh.fetch(put, "m", tmp_path / f"{after}").read_bytes() == content
    assert proxy.cuts == 8


def test_a_sidecar_whose_answer_is_lost_is_known_again(open_s3, proxy, client, root, tmp_path):
    store = open_s3(endpoint_url=proxy.url)
    proxy.cut(request=b".json HTTP", times=1)
    assert store.list() == []
    proxy.cut(request=b"00000001.json HTTP", times=2)  # looking whether it is there, and writing it
    put = store.put(1, {"m": file(tmp_path / "m", b"x")})
    assert proxy.cuts == 2
    assert open_s3().newest_valid() == put
    assert leftovers(client, prefix_of(root)) == []


@pytest.mark.parametrize("size", [1000, pytest.param(12 * MB, marks=pytest.mark.slow)])
def test_a_network_that_stays_broken_is_an_error_and_no_checkpoint(
    open_s3, proxy, client, root, tmp_path, size
):
    source = file(tmp_path / "m", os.urandom(size))
    store = open_s3(endpoint_url=proxy.url, attempts=2)
    proxy.cut(request=b"/m", times=10**6)
    with pytest.raises(StoreUnreachable, match=proxy.url):
        store.put(1, {"m": source})
    assert open_s3().list() == []
    put = open_s3().put(1, {"m": source})
    with pytest.raises(StoreUnreachable, match=proxy.url):
        store.verify(put)
    with pytest.raises(StoreUnreachable, match=proxy.url):
        store.fetch(put, "m", tmp_path / "here")
    assert list(tmp_path.rglob("here/*")) == []
    proxy.cut(request=b"", times=0)
    store.verify(put)


@pytest.mark.parametrize(
    ("minutes", "words"), [(20, "20 minutes ahead of"), (-20, "20 minutes behind")]
)
def test_a_clock_that_is_off_is_named(open_s3, monkeypatch, minutes, words):
    shift_clock(monkeypatch, minutes)
    with pytest.raises(StoreError, match=words):
        open_s3().list()


@pytest.mark.parametrize("minutes", [3, pytest.param(-3, marks=pytest.mark.slow)])
def test_leases_do_not_go_by_the_clock_of_this_machine(open_s3, monkeypatch, minutes):
    with open_s3().lease("node-a"):
        shift_clock(monkeypatch, minutes)
        with pytest.raises(LeaseLost, match="node-a"), open_s3().lease("node-b"):
            pass


def shift_clock(monkeypatch, minutes):
    now, real = datetime.timedelta(minutes=minutes), botocore.compat.get_current_datetime
    for module in (botocore.auth, botocore.compat):
        monkeypatch.setattr(
            module, "get_current_datetime", lambda *args, **kw: real(*args, **kw) + now
        )
    real_time = time.time
    monkeypatch.setattr(time, "time", lambda: real_time() + 60 * minutes)


PUT_FOR_EVER = """
import contextlib, sys
from pathlib import Path
from curitorch.external.stores.s3 import S3Store
root, url, source, leased = sys.argv[1:]
store = S3Store(root, endpoint_url=url, part_bytes=5 << 20, lease_seconds=1.5)
with store.lease("writer") if leased == "True" else contextlib.nullcontext() as lease:
    for step in range(100):
        store.put(step, {"m": Path(source)}, lease=lease)
"""


@pytest.mark.parametrize("leased", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_a_writer_killed_between_parts_leaves_nothing_that_counts_and_is_cleaned_away(
    open_s3, server, client, root, tmp_path, monkeypatch, leased
):
    source = file(tmp_path / "m", os.urandom(40 * MB))
    words = [root, server.endpoint_url, str(source), str(leased)]
    writer = subprocess.Popen([sys.executable, "-c", PUT_FOR_EVER, *words])
    while True:
        assert writer.poll() is None
        if unfinished(client, prefix_of(root)):
            writer.send_signal(signal.SIGSTOP)
            time.sleep(1)  # the server ends what it was sent
            if unfinished(client, prefix_of(root)):
                break
            writer.send_signal(signal.SIGCONT)
        time.sleep(0.01)
    writer.kill()
    writer.wait()
    store = open_s3()
    complete = store.list()
    for checkpoint in complete:
        store.verify(checkpoint)
    assert leftovers(client, prefix_of(root)) != []
    if not leased:
        with store.lease("next"):  # it could be a living one's
            assert leftovers(client, prefix_of(root)) != []
        monkeypatch.setattr(s3_sweep, "FORGOTTEN", datetime.timedelta(0))
    for _ in range(20):  # the server ends what it was sent, and its times are whole seconds
        time.sleep(1.1)
        with store.lease("next"):
            left = leftovers(client, prefix_of(root))
        if left == []:
            break
    assert left == []
    assert store.list() == complete


def test_what_others_keep_below_the_root_stays(open_s3, client, root, tmp_path):
    put = open_s3().put(1, {"m": file(tmp_path / "m", b"x")})
    others = ["notes.txt", "step-00000001/model.ckpt", "step-1.json", "step-00000009/x/y", "z/é"]
    others += ["step-00000002.json.bak", "lease-x.json"]
    for name in others:
        client.put_object(Bucket=BUCKET, Key=prefix_of(root) + name, Body=b"theirs")
    neighbour = prefix_of(root).rstrip("/") + "2/step-00000003/00000000-" + "0" * 16 + "/m"
    client.put_object(Bucket=BUCKET, Key=neighbour, Body=b"theirs")
    store = open_s3()
    with warnings.catch_warnings(action="error"), store.lease("a") as lease:
        assert store.list() == [put]
        store.delete(1, lease=lease)
    with store.lease("b"):
        pass
    found = [key.removeprefix(prefix_of(root)) for key in keys(client, prefix_of(root))]
    assert sorted(found) == sorted([*others, "lease-00000002.json"])
    assert neighbour in keys(client, prefix_of(root).rstrip("/"))


def test_a_server_that_ignores_conditions_is_refused(open_s3):
    store = open_s3()
    store._bucket.client.meta.events.register(
        "before-call.s3.PutObject",
        lambda params, **_: params["headers"].pop("If-None-Match", None) and None,
    )
    with pytest.raises(StoreError, match="ignores If-None-Match"), store.lease("node-a"):
        pass


def test_what_is_known_to_be_whole_is_not_read_again(open_s3, tmp_path, monkeypatch):
    read, download = [], S3Bucket.download
    monkeypatch.setattr(
        S3Bucket,
        "download",
        lambda *args, **more: (read.append(args[1]), download(*args, **more))[1],
    )
    writer, reader = open_s3(), open_s3()
    put = writer.put(1, {"m": file(tmp_path / "m", b"x")})
    assert writer.newest_valid() == put
    assert read == []
    for _ in range(2):
        assert reader.newest_valid() == put
    assert len(read) == 1
    here = [reader.fetch(put, "m", tmp_path / "here") for _ in range(2)]
    assert len(read) == 2
    here[0].write_bytes(b"y")
    assert open_s3().fetch(put, "m", tmp_path / "here").read_bytes() == b"x"
    assert len(read) == 3
    assert open_s3().fetch_newest_valid("m", tmp_path / "there")[0] == put
    assert len(read) == 4


def test_more_objects_than_a_page_holds_are_all_listed(open_s3, tmp_path):
    store = open_s3()
    files = {name: file(tmp_path / name, b"x") for name in "abc"}
    put = [store.put(step, files) for step in range(8)]
    assert len(store._bucket.list().objects) == 32  # the server's pages have 20
    assert store.list() == put


def test_a_full_disk_here_leaves_no_copy(open_s3, tmp_path, monkeypatch):
    put = open_s3().put(1, {"m": file(tmp_path / "m", os.urandom(6 * MB))})
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # Python 3.11 would leave torn files
    resource.setrlimit(resource.RLIMIT_FSIZE, (MB, hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            open_s3().fetch(put, "m", tmp_path / "here")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list((tmp_path / "here").iterdir()) == []


@pytest.mark.slow
def test_the_lease_lives_longer_than_its_seconds_while_its_holder_does(open_s3, tmp_path):
    with open_s3(lease_seconds=4).lease("node-a") as lease:
        time.sleep(8)
        with pytest.raises(LeaseLost, match="node-a"), open_s3().lease("node-b"):
            pass
        open_s3().put(1, {"m": file(tmp_path / "m", b"x")}, lease=lease)


@pytest.mark.slow
def test_a_holder_cut_off_from_the_server_loses_the_lease_and_writes_nothing(
    open_s3, proxy, tmp_path
):
    source = file(tmp_path / "m", b"x")
    cut_off = open_s3(endpoint_url=proxy.url, attempts=1)
    with cut_off.lease("node-a") as old:
        proxy.cut(request=b"lease", times=10**6)
        with open_s3().lease("node-b"):  # waits until the other's has run out
            proxy.cut(request=b"", times=0)
            with pytest.raises(LeaseLost, match="node-a"):
                cut_off.put(1, {"m": source}, lease=old)
    assert open_s3().list() == []


@pytest.mark.parametrize("content", [b"{", b"[]", b"\xff", b'{"schema": 1}', b'{"schema": 99}'])
def test_a_lease_that_cannot_be_read_is_named(open_s3, client, root, content):
    key = prefix_of(root) + "lease-00000001.json"
    client.put_object(Bucket=BUCKET, Key=key, Body=content)
    with pytest.raises(UnreadableFile, match="lease-00000001"), open_s3().lease("node-a"):
        pass
