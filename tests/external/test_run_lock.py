import os
import subprocess
import sys
import threading
import time

import pytest

from curitorch.external.run_lock import RunLock, RunLocked
from tests.external.stores.disks import fill, small_disk

HOLD = (
    "import sys\nfrom pathlib import Path\nfrom curitorch.external.run_lock import RunLock\n"
    "with RunLock(Path(sys.argv[1])):\n    print('held', flush=True)\n    sys.stdin.read()\n"
)


@pytest.fixture
def holder(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout.readline() == b"held\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_a_second_process_is_refused_with_the_name_of_the_holder(tmp_path, holder):
    with pytest.raises(RunLocked, match=rf"process {holder.pid} on \S+ since"), RunLock(tmp_path):
        pass


def test_kill_9_of_the_holder_frees_the_lock(tmp_path, holder):
    holder.kill()
    holder.wait()
    with RunLock(tmp_path):
        pass


def test_one_that_waits_says_for_whom_and_gets_the_lock(tmp_path, holder):
    said, began = [], time.monotonic()

    def let_go(sentence):
        said.append(sentence)
        threading.Timer(0.3, holder.stdin.close).start()

    with RunLock(tmp_path, wait_seconds=None, on_wait=let_go):
        assert holder.wait() == 0
    assert f"process {holder.pid}" in said[0]
    assert len(said) <= 1 + (time.monotonic() - began) / 30  # again after half a minute


def test_waiting_has_an_end(tmp_path, holder):
    with pytest.raises(RunLocked), RunLock(tmp_path, wait_seconds=0.3):
        pass


def test_the_lock_creates_its_run_directory_and_can_be_taken_again(tmp_path):
    for _ in range(2):
        with RunLock(tmp_path / "new" / "run"):
            assert (tmp_path / "new" / "run").is_dir()
    assert os.listdir(tmp_path / "new" / "run") == ["lock"]


def test_a_full_disk_is_named_with_the_file_and_the_lock_is_let_go(tmp_path):
    with small_disk(tmp_path / "disk", "400k") as disk:
        (disk / "run").mkdir()
        lock = RunLock(disk / "run")
        filler = fill(disk)
        with pytest.raises(OSError, match=r"No space left .*lock-holder\.json"), lock:
            pass
        filler.unlink()
        with RunLock(disk / "run"):
            assert not list((disk / "run").glob(".incomplete-*"))
