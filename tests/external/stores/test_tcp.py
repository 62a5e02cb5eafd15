"""The TCP store: it keeps the contract of all stores, over networks that break."""

import copy
import subprocess
import sys

import pytest

from curitorch.external.checksum import checksum
from curitorch.external.schema import UnreadableFile
from curitorch.external.stores.sidecar import folder_name, sidecar_name, step_of
from curitorch.external.stores.store import StoredCheckpoint, StoredFile
from curitorch.external.stores.tcp import TcpStore
from curitorch.external.stores.testing import StoreContract
from curitorch.external.stores.testing.running_service import RunningService
from tests.external.stores.older_records import OlderRecords

WAIT_FOR_THE_DEAD = ("test_kill_9_loses", "test_kill_9_at_many", "test_a_dead_holders_lease")
"""Tests in which a dead holder's lease has to run out, and that of a living one never counts."""


@pytest.fixture(scope="module")
def shared_service(tmp_path_factory):
    """A holder that stands still for some seconds keeps its lease."""
    with RunningService(tmp_path_factory.mktemp("service"), "--lease-seconds", "6") as service:
        yield service


@pytest.fixture(scope="module")
def hasty_service(tmp_path_factory):
    with RunningService(tmp_path_factory.mktemp("service"), "--lease-seconds", "0.6") as service:
        yield service


class TestTcpStore(StoreContract, OlderRecords):
    KILLS = 3
    LANES = 4
    LEASE_SECONDS = 60.0
    LEASE_RUNS_OUT_SECONDS = 0.8

    @pytest.fixture
    def recipe(self, request):
        is_hasty = request.node.name.startswith(WAIT_FOR_THE_DEAD)
        fixture = "hasty_service" if is_hasty else "shared_service"
        self.service = request.getfixturevalue(fixture)
        self.job = f"job-{abs(hash(request.node.name))}"
        return self.service.recipe(self.job)

    def another(self, name):
        beside = copy.copy(self)
        beside.job = f"{self.job}-{name}"
        return beside, self.service.recipe(beside.job)

    @property
    def folder(self):
        return self.service.root / self.job

    def damage(self, checkpoint: StoredCheckpoint, name: str, content: bytes | None) -> None:
        path = self.folder / folder_name(checkpoint.step) / name
        path.unlink() if content is None else path.write_bytes(content)

    def damage_sidecar(self, step: int, content: bytes) -> None:
        (self.folder / sidecar_name(step)).write_bytes(content)

    def leftovers(self) -> list[str]:
        if not self.folder.exists():
            return []
        names = {path.name for path in self.folder.iterdir()}
        uploads = [path.name for path in (self.folder / "uploads").glob("*")]
        kept = {"uploads", "changes", "service-lease.json"}
        sidecars = {name for name in names if name.endswith(".json") and step_of(name) is not None}
        whole = {name.removesuffix(".json") for name in sidecars}
        return sorted(names - kept - sidecars - whole) + uploads


@pytest.fixture
def store(shared_service, request):
    with shared_service.store(f"job-{abs(hash(request.node.name))}") as store:
        yield store


def test_a_checksum_that_its_writer_knows_is_compared_with_what_arrives(store, tmp_path):
    path = tmp_path / "model"
    path.write_bytes(b"hello")
    right = StoredFile(5, checksum(path))
    wrong = StoredFile(5, "sha256:" + "0" * 64)
    with pytest.raises(UnreadableFile, match=r"on the way.*not what its writer recorded"):
        store.put(1, {"m": path}, known={"m": wrong})
    assert store.list() == []
    assert store.put(1, {"m": path}, known={"m": right}).files == {"m": right}
    store.verify(*store.list())


def test_a_token_comes_from_one_place(tmp_path):
    empty = tmp_path / "token"
    empty.write_text("\n")
    for options, error in [({}, ValueError), ({"token": "x", "token_file": empty}, ValueError)]:
        with pytest.raises(error, match="needs a token"):
            TcpStore("job", "127.0.0.1", 1, **options)
    with pytest.raises(OSError, match="is empty"):
        TcpStore("job", "127.0.0.1", 1, token_file=empty)
    with pytest.raises(ValueError, match="safe name"):
        TcpStore("../job", "127.0.0.1", 1, token="x")


def test_the_client_needs_no_aiohttp_and_the_service_says_how_to_get_it():
    blocked = "import sys; sys.modules['aiohttp'] = None\n"
    client = "from curitorch.external.stores import TcpStore; TcpStore('job', 'host', 1, token='x')"
    done = subprocess.run(
        [sys.executable, "-c", blocked + client], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    service = "import runpy; runpy.run_module('curitorch.external.stores.server')"
    done = subprocess.run(
        [sys.executable, "-c", blocked + service], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr.strip() == (
        'The service of the TCP store needs aiohttp: pip install "curitorch[tcp]".'
    )
