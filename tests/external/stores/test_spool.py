"""Saving does not wait for the store; what was saved gets there, after kills and restarts too."""

import os
import pickle
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path

import pytest
import torch

from curitorch.external.checksum import checksum
from curitorch.external.schema import UnreadableFile
from curitorch.external.stores import Saver, open_store
from curitorch.external.stores.local import LocalStore
from curitorch.external.stores.retention import Retention
from curitorch.external.stores.sidecar import sidecar_name
from curitorch.external.stores.spool.spooling_store import SpoolFull, SpoolingStore
from curitorch.external.stores.store import (
    CheckpointExists,
    LeaseLost,
    StoredFile,
    StoreError,
    StoreUnreachable,
)
from curitorch.external.stores.testing.running_service import RunningService

SIZE = 10_000
LONG = 60.0  # seconds in which even a machine that stands still for a while gets it done


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
    return SpoolingStore(
        store, folder, **{"limit_bytes": 10 * SIZE, "close_seconds": LONG, **options}
    )


def model(tmp_path: Path, content: bytes | None = None) -> dict[str, Path]:
    path = tmp_path / "model"
    path.write_bytes(os.urandom(SIZE) if content is None else content)
    return {"model.ckpt": path}


def close_quietly(spool):
    with warnings.catch_warnings(record=True):
        warnings.simplefilter("always")
        spool.close_seconds = 0
        spool.close()


def until(condition):
    end = time.monotonic() + LONG
    while not condition():
        assert time.monotonic() < end, "it did not come to that"
        time.sleep(0.01)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_what_is_put_gets_to_the_store_in_order(store, folder, tmp_path):
    seen = []
    put = store.put
    store.put = lambda step, *a, **k: (put(step, *a, **k), seen.append(step))[0]
    with spooling(store, folder) as spool:
        store.dead = True
        given = [spool.put(n, model(tmp_path), details={"n": n}) for n in (3, 1, 2)]
        store.dead = False
        assert spool.flush(LONG)
        assert spool.pending == []
    assert seen == [3, 1, 2]
    assert store.list() == sorted(given, key=lambda each: each.step)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_dead_store_keeps_nobody_waiting_and_pending_can_be_read(store, folder, tmp_path):
    asked, gives_up = threading.Event(), threading.Event()

    def put_in_vain(*arguments, **more):
        asked.set()
        assert gives_up.wait(LONG), "somebody waited for it"
        store.dead = True
        raise StoreUnreachable("nobody answers")

    store.put = put_in_vain
    spool = spooling(store, folder)
    content = os.urandom(SIZE)
    put = spool.put(1, model(tmp_path, content), details={"epoch": 4})
    model(tmp_path, b"changed after the put")
    assert asked.wait(LONG)
    assert spool.pending == [put]
    gives_up.set()
    until(lambda: store.dead)
    del store.put
    assert spool.newest_valid() == put
    spool.verify(put)
    assert spool.fetch(put, "model.ckpt", tmp_path / "here").read_bytes() == content
    assert spool.prune(Retention(newest=1)) == []
    until(lambda: isinstance(spool.error, StoreUnreachable))
    store.dead = False
    assert spool.flush(LONG)
    assert spool.error is None
    assert spool.list() == [put] == store.list()
    assert spool.fetch(put, "model.ckpt", tmp_path / "there").read_bytes() == content
    spool.close()


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_what_is_stored_and_what_waits_are_listed_together(store, folder, tmp_path):
    stored = store.put(1, model(tmp_path))

    def put_in_vain(*arguments, **more):
        raise StoreUnreachable("it can be read, and is full")

    store.put = put_in_vain
    spool = spooling(store, folder)
    waiting = spool.put(2, model(tmp_path))
    assert spool.list() == [stored, waiting]
    close_quietly(spool)


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
    assert spool.flush(LONG)
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
        assert spool.flush(LONG)
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
        assert spool.flush(LONG)
    assert [each.step for each in store.list()] == [1, 2]
    [refused] = LocalStore(folder / "refused").list()
    path = LocalStore(folder / "refused").fetch(refused, "model.ckpt", tmp_path)
    assert path.read_bytes() == b"other"


def test_a_writer_that_was_overtaken_learns_it_at_its_next_put(store, folder, tmp_path):
    with spooling(store, folder) as spool:
        with spool.lease("node-a") as lease:
            spool.put(1, model(tmp_path), lease=lease)
            assert spool.flush(LONG)
        with LocalStore(store.root).lease("node-b"):
            with pytest.warns(UserWarning, match="Step 2 was refused"):
                spool.put(2, model(tmp_path), lease=lease)
                assert spool.flush(LONG)
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
        assert again.flush(LONG)
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


def test_what_is_deleted_on_its_way_is_not_there_in_the_end(store, folder, tmp_path):
    under_way, deleted, put = threading.Event(), threading.Event(), store.put

    def put_slowly(step, files, **more):
        sent = {name: path.read_bytes() for name, path in files.items()}
        under_way.set()
        assert deleted.wait(LONG)
        return put(step, model(tmp_path, sent["model.ckpt"]), **more)

    with spooling(store, folder) as spool:
        store.put = put_slowly
        spool.put(1, model(tmp_path))
        assert under_way.wait(LONG)
        spool.delete(1)
        assert not spool.flush(0.2)  # it is under way
        deleted.set()
        assert spool.flush(LONG)
        assert store.list() == []
        store.put = put
        spool.put(2, model(tmp_path))
        assert spool.flush(LONG)
    assert [each.step for each in store.list()] == [2]


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_it_rides_out_a_restart_of_the_service(folder, tmp_path):
    with RunningService(tmp_path) as service:
        spool = spooling(service.store(tries=1), folder)
        spool.put(1, model(tmp_path))
        assert spool.flush(LONG)
        service.kill()
        spool.put(2, model(tmp_path))
        until(lambda: spool.error is not None)
        service.start()
        spool.put(3, model(tmp_path))
        spool.close()
        with service.store() as store:
            assert [each.step for each in store.list()] == [1, 2, 3]


PUT_ELSEWHERE = """
import os, pickle, sys
from pathlib import Path
store = pickle.load(sys.stdin.buffer)
with store.drafting() as folder:
    path = folder / "model.ckpt"
    path.write_bytes(b"from elsewhere")
    store.put(2, {"model.ckpt": path}, details={"n": 2}, move=True)
assert store.newest_valid().step == 2
print(store.prune(Retention(newest=1)))
os.kill(os.getpid(), 9)
""".replace("print", "from curitorch.external.stores.retention import Retention\nprint")


def put_elsewhere(spool):
    return subprocess.run(
        [sys.executable, "-u", "-c", PUT_ELSEWHERE],
        input=pickle.dumps(spool),
        check=False,
        capture_output=True,
    )


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_in_another_process_it_puts_into_the_same_folder(folder, tmp_path):
    with RunningService(tmp_path) as service:
        spool = spooling(service.store(tries=1), folder)
        spool.put(1, model(tmp_path))
        assert spool.flush(LONG)
        service.kill()
        done = put_elsewhere(spool)
        assert (done.returncode, done.stdout) == (-9, b"[]\n"), done.stderr.decode()
        [second] = spool.pending
        assert (second.step, second.details) == (2, {"n": 2})
        assert spool.fetch_newest_valid("model.ckpt", tmp_path / "here")[0] == second
        assert (tmp_path / "here" / "model.ckpt").read_bytes() == b"from elsewhere"
        service.start()
        with service.store() as store:
            assert second in spool.list()
            assert spool.flush(LONG)
            assert store.list() == [second]  # what was asked for there: one is to stay
        spool.close()


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_what_another_process_puts_is_uploaded_though_nobody_says_so(store, folder):
    with spooling(store, folder) as spool:
        done = put_elsewhere(spool)
        assert done.returncode == -9, done.stderr.decode()
        until(lambda: [each.step for each in store.list()] == [2])


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_dead_store_keeps_nobody_waiting_for_pruning(store, folder, tmp_path):
    spool = spooling(store, folder)
    for step in (1, 2, 3):
        spool.put(step, model(tmp_path))
    assert spool.flush(LONG)
    store.dead = True
    asked = []
    store.prune = lambda *a, **k: (asked.append(a), LocalStore.prune(store, *a, **k))[1]
    for step in (4, 5, 6):
        spool.put(step, model(tmp_path))
        assert spool.prune(Retention(newest=2)) == []
    close_quietly(spool)
    assert asked == []
    store.dead = False
    with spooling(store, folder) as again:
        assert again.flush(LONG)
    assert [each.step for each in store.list()] == [5, 6]
    assert not (folder / "prune.json").exists()


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_dead_service_does_not_hold_up_saving_in_the_background(tmp_path):
    with RunningService(tmp_path) as service:
        kind, line = service.recipe()
        service.kill()
        spool = f'spool="{tmp_path}/a spool",spool_bytes=1GB'
        with open_store(kind, f"{line},tries=10000,{spool}") as store:
            saver = Saver(store, asynchronous=True, retention=Retention(newest=2))
            for step in range(1, 6):
                saver.save(step, {"w": torch.full((1000,), float(step))}, details={"epoch": step})
            saver.wait()
            assert [each.step for each in store.pending] == [1, 2, 3, 4, 5]
            service.start()
            assert store.flush(LONG)
            assert [each.step for each in store.list()] == [4, 5]
            [_, newest] = store.list()
            assert newest.details["epoch"] == 5
            path = store.fetch(newest, "model.ckpt", tmp_path)
            assert torch.equal(torch.load(path)["w"], torch.full((1000,), 5.0))
            saver.close()


@pytest.mark.filterwarnings("error")
def test_what_is_moved_and_known_is_taken_over_and_not_read(store, folder, tmp_path):
    with spooling(store, folder) as spool:
        store.dead = True
        with spool.drafting() as drafts:
            path = drafts / "model.ckpt"
            path.write_bytes(b"weights")
            number = path.stat().st_ino
            known = {"model.ckpt": StoredFile(7, checksum(path))}
            put = spool.put(1, {"model.ckpt": path}, move=True, known=known)
        kept = folder / "pending" / "step-00000001" / "model.ckpt"
        assert kept.stat().st_ino == number
        assert put.files == known
        with pytest.raises(UnreadableFile, match="not what its writer recorded"):
            spool.put(2, model(tmp_path), known=known)
        assert spool.put(1, {"model.ckpt": kept}, known=known) == put
        store.dead = False


def in_sha256(store, checkpoint, paths):
    """Record a checkpoint of a local store as an older curitorch did."""
    path = store.root / sidecar_name(checkpoint.step)
    text = path.read_text()
    for name, file in checkpoint.files.items():
        assert file.checksum in text
        text = text.replace(file.checksum, checksum(paths[name], kind="sha256"))
    path.write_text(text)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("where", ["spool", "store", "both"])
def test_what_an_older_curitorch_spooled_or_stored_is_no_other_checkpoint(
    store, folder, tmp_path, where
):
    files = model(tmp_path)
    put = LocalStore(folder / "pending").put(
        1, files, details={"number": 1, "details": {"epoch": 4}, "lease": None}
    )
    if where != "store":
        in_sha256(LocalStore(folder / "pending"), put, files)
    if where != "spool":
        store.put(1, files, details={"epoch": 4})
        in_sha256(store, put, files)
    with spooling(store, folder) as spool:
        assert spool.flush(LONG)
        assert spool.error is None
        [there] = store.list()
        assert store.newest_valid() == there
        assert there.files["model.ckpt"].checksum.startswith("sha256:")
        assert spool.put(1, files, details={"epoch": 4}).step == 1


def test_what_waits_with_an_old_checksum_is_the_same_as_what_is_put_again(store, folder, tmp_path):
    store.dead, files = True, model(tmp_path)
    spool = spooling(store, folder)
    put = spool.put(1, files, details={"epoch": 4})
    in_sha256(LocalStore(folder / "pending"), put, files)
    again = spool.put(1, files, details={"epoch": 4})
    assert again.files["model.ckpt"].checksum.startswith("sha256:")
    with pytest.raises(CheckpointExists):
        spool.put(1, model(tmp_path), details={"epoch": 4})
    close_quietly(spool)
