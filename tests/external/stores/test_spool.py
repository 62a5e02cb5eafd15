"""Saving does not wait for the store; what was saved gets there, after kills and restarts too."""

import os
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pytest

from curitorch.external.stores.local import LocalStore
from curitorch.external.stores.retention import Retention
from curitorch.external.stores.spool import SpoolFull, SpoolingStore
from curitorch.external.stores.store import (
    CheckpointExists,
    LeaseLost,
    StoreError,
    StoreUnreachable,
)
from curitorch.external.stores.testing.running_service import RunningService

SIZE = 10_000


class DeadAtWill(LocalStore):
    """A store that does not answer while `dead` is set."""

    dead = False

    def put(self, *arguments, **more):
        self._answer()
        return super().put(*arguments, **more)

    def list(self):
        self._answer()
        return super().list()

    def delete(self, step, *, lease=None):
        self._answer()
        super().delete(step, lease=lease)

    def _answer(self):
        if self.dead:
            raise StoreUnreachable("nobody answers")


@pytest.fixture
def store(tmp_path):
    return DeadAtWill(tmp_path / "store")


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "a spool"


def spooling(store, folder, **options):
    return SpoolingStore(store, folder, **{"limit_bytes": 10 * SIZE, "close_seconds": 5, **options})


def model(tmp_path: Path, content: bytes | None = None) -> dict[str, Path]:
    path = tmp_path / "model"
    path.write_bytes(os.urandom(SIZE) if content is None else content)
    return {"model.ckpt": path}


def close_quietly(spool):
    with warnings.catch_warnings(record=True):
        warnings.simplefilter("always")
        spool.close_seconds = 0
        spool.close()


def until(condition, seconds=10.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come to that"
        time.sleep(0.01)


def test_what_is_put_gets_to_the_store_in_order(store, folder, tmp_path):
    seen = []
    put = store.put
    store.put = lambda step, *a, **k: (seen.append(step), put(step, *a, **k))[1]
    with spooling(store, folder) as spool:
        given = [spool.put(n, model(tmp_path), details={"n": n}) for n in (3, 1, 2)]
        assert spool.flush(10)
        assert spool.pending == []
    assert seen == [3, 1, 2]
    assert store.list() == sorted(given, key=lambda each: each.step)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_dead_store_keeps_nobody_waiting_and_pending_can_be_read(store, folder, tmp_path):
    store.dead = True
    spool = spooling(store, folder)
    content = os.urandom(SIZE)
    started = time.monotonic()
    put = spool.put(1, model(tmp_path, content), details={"epoch": 4})
    model(tmp_path, b"changed after the put")
    assert time.monotonic() - started < 1
    assert spool.pending == [put]
    assert spool.newest_valid() == put
    spool.verify(put)
    assert spool.fetch(put, "model.ckpt", tmp_path / "here").read_bytes() == content
    assert spool.prune(Retention(newest=1)) == []
    until(lambda: isinstance(spool.error, StoreUnreachable))
    store.dead = False
    assert spool.flush(10)
    assert spool.error is None
    assert spool.list() == [put] == store.list()
    assert spool.fetch(put, "model.ckpt", tmp_path / "there").read_bytes() == content
    spool.close()


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_beyond_its_limit_it_says_so_and_saves_nothing(store, folder, tmp_path):
    store.dead = True
    spool = spooling(store, folder, limit_bytes=2 * SIZE)
    spool.put(1, model(tmp_path))
    spool.put(2, model(tmp_path))
    until(lambda: spool.error is not None)
    with pytest.raises(SpoolFull, match=r"20000 bytes of 2 checkpoints.*nobody answers"):
        spool.put(3, model(tmp_path))
    assert [each.step for each in spool.pending] == [1, 2]
    store.dead = False
    assert spool.flush(10)
    spool.put(3, model(tmp_path))
    spool.close()
    assert [each.step for each in store.list()] == [1, 2, 3]


def test_one_warning_tells_of_a_dead_store_and_one_at_the_end_what_is_left(store, folder, tmp_path):
    store.dead = True
    with pytest.warns(UserWarning, match=r"stay in .*a spool' for now: nobody answers"):
        spool = spooling(store, folder, close_seconds=0.2)
        spool.put(1, model(tmp_path))
        until(lambda: spool.error is not None)
    with pytest.warns(UserWarning, match=r"1 checkpoints \(10000 bytes\).*opened again"):
        spool.close()


def test_what_a_dead_process_left_is_uploaded_by_the_next(store, folder, tmp_path):
    program = f"""
import os, sys
from pathlib import Path
from curitorch.external.stores.spool import SpoolingStore
from curitorch.external.stores.tcp import TcpStore
nobody = TcpStore("job", "127.0.0.1", 1, token="x" * 16, tries=1)
spool = SpoolingStore(nobody, Path({str(folder)!r}), limit_bytes=10**6)
for step in (1, 2):
    spool.put(step, {{"model.ckpt": Path({str(model(tmp_path)["model.ckpt"])!r})}})
os.kill(os.getpid(), 9)
"""
    done = subprocess.run([sys.executable, "-c", program], check=False, capture_output=True)
    assert done.returncode == -9, done.stderr
    with spooling(store, folder) as spool:
        assert spool.flush(10)
    assert [each.step for each in store.list()] == [1, 2]


def test_two_processes_do_not_share_a_folder(store, folder):
    with spooling(store, folder), pytest.raises(StoreError, match="its own folder"):
        spooling(store, folder)
    spooling(store, folder).close()


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_the_same_step_twice_is_fine_and_another_is_refused(store, folder, tmp_path):
    store.dead = True
    spool = spooling(store, folder)
    put = spool.put(1, model(tmp_path, b"same"), details={"a": 1})
    assert spool.put(1, model(tmp_path, b"same"), details={"a": 1}) == put
    with pytest.raises(CheckpointExists):
        spool.put(1, model(tmp_path, b"other"))
    assert spool.pending == [put]
    store.dead = False
    spool.close()


def test_what_the_store_never_takes_is_set_aside_and_the_rest_goes_on(store, folder, tmp_path):
    store.put(1, model(tmp_path, b"first"))
    with pytest.warns(UserWarning, match="Step 1 was refused"), spooling(store, folder) as spool:
        spool.put(1, model(tmp_path, b"other"))
        spool.put(2, model(tmp_path))
        assert spool.flush(10)
    assert [each.step for each in store.list()] == [1, 2]
    [refused] = LocalStore(folder / "refused").list()
    path = LocalStore(folder / "refused").fetch(refused, "model.ckpt", tmp_path)
    assert path.read_bytes() == b"other"


def test_a_writer_that_was_overtaken_learns_it_at_its_next_put(store, folder, tmp_path):
    with spooling(store, folder) as spool:
        with spool.lease("node-a") as lease:
            spool.put(1, model(tmp_path), lease=lease)
            assert spool.flush(10)
        with LocalStore(store.root).lease("node-b"):
            with pytest.warns(UserWarning, match="Step 2 was refused"):
                spool.put(2, model(tmp_path), lease=lease)
                assert spool.flush(10)
            with pytest.raises(LeaseLost):
                spool.put(3, model(tmp_path), lease=lease)
    assert [each.step for each in store.list()] == [1]


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(("somebody_else", "arrive"), [(False, [1, 2]), (True, [2])])
def test_a_restarted_writer_inherits_its_spool_unless_somebody_wrote_in_between(
    store, folder, tmp_path, somebody_else, arrive
):
    spool = spooling(store, folder)
    with spool.lease("node-a") as lease:
        store.dead = True
        spool.put(1, model(tmp_path), lease=lease)
    close_quietly(spool)
    if somebody_else:
        with LocalStore(store.root).lease("node-b"):
            pass
    again = spooling(store, folder)
    with again.lease("node-a") as lease:
        store.dead = False
        again.put(2, model(tmp_path), lease=lease)
        assert again.flush(10)
    again.close()
    assert [each.step for each in store.list()] == arrive


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_what_is_deleted_while_it_waits_does_not_arrive(store, folder, tmp_path):
    store.dead = True
    spool = spooling(store, folder)
    spool.put(1, model(tmp_path))
    spool.put(2, model(tmp_path))
    with pytest.raises(StoreUnreachable):
        spool.delete(1)
    assert [each.step for each in spool.pending] == [2]
    store.dead = False
    spool.close()
    assert [each.step for each in store.list()] == [2]


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_it_rides_out_a_restart_of_the_service(folder, tmp_path):
    with RunningService(tmp_path) as service:
        spool = spooling(service.store(tries=1), folder, close_seconds=20)
        spool.put(1, model(tmp_path))
        assert spool.flush(10)
        service.kill()
        spool.put(2, model(tmp_path))
        until(lambda: spool.error is not None)
        service.start()
        spool.put(3, model(tmp_path))
        spool.close()
        with service.store() as store:
            assert [each.step for each in store.list()] == [1, 2, 3]
