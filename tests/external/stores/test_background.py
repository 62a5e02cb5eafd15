import os
import signal
import time
from pathlib import Path

import pytest
import torch

from curitorch.external.atomic import TEMPORARY_PREFIX
from curitorch.external.stores import single_file
from curitorch.external.stores.saving.background import BackgroundWriter
from curitorch.external.stores.saving.target import FileTarget


class Writer(BackgroundWriter):
    """Writes torch files to paths."""

    def put(self, state, path, **options):
        request = {"path": str(path), "step": 0, "details": {}}
        self.save(state, request, what=f"Saving '{path}'", **options)


@pytest.fixture
def writer():
    writer = Writer(FileTarget())
    yield writer
    writer.close()


def test_what_was_staged_is_what_was_there_at_the_save(tmp_path, writer):
    tensor = torch.zeros(500_000)
    done = []
    writer.put({"x": tensor}, tmp_path / "a.pt", then=done.append)
    tensor += 1  # training goes on
    writer.wait()
    assert torch.load(tmp_path / "a.pt")["x"].sum() == 0
    assert done == [single_file.verify(tmp_path / "a.pt")]
    assert done[0].bytes == (tmp_path / "a.pt").stat().st_size
    assert sorted(os.listdir(tmp_path)) == ["a.json", "a.pt"]


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_thousand_saves_while_every_step_changes_every_tensor_are_one_step_each(tmp_path, writer):
    state = [torch.full((1000,), -1.0) for _ in range(20)]
    for step in range(1000):
        for tensor in state:
            tensor.fill_(step)
        writer.put(state, tmp_path / f"{step % 50}.pt")
        if step % 50 == 49:
            writer.wait()
            for past in range(step - 49, step + 1):
                saved = torch.load(tmp_path / f"{past % 50}.pt")
                assert {float(value) for tensor in saved for value in tensor.unique()} == {past}


def test_smaller_and_larger_states_use_the_same_memory_and_leave_no_traces(tmp_path, writer):
    for size in (100_000, 10, 3_000_000, 1000):
        writer.put({"x": torch.full((size,), float(size))}, tmp_path / "x.pt")
        writer.wait()
        assert torch.load(tmp_path / "x.pt")["x"].tolist() == [size] * size


def test_an_error_in_the_background_is_raised_once_and_the_old_file_stays(tmp_path, writer):
    (tmp_path / "x.pt").write_bytes(b"old")
    (tmp_path / "taken").mkdir()
    writer.put([1], tmp_path / "taken")
    with pytest.raises(IsADirectoryError, match=r"Saving '.*/taken' failed"):
        writer.wait()
    writer.wait()
    writer.put([1], tmp_path / "x.pt")
    writer.wait()
    assert torch.load(tmp_path / "x.pt") == [1]


def test_a_killed_writer_process_is_an_error_and_the_next_save_starts_another(tmp_path, writer):
    writer.put([1], tmp_path / "a.pt")
    writer.wait()
    assert writer._process is not None
    os.kill(writer._process.pid, signal.SIGKILL)
    writer._process.wait()
    with pytest.raises(OSError, match="ended with -9"):
        writer.put([2], tmp_path / "b.pt")
        writer.wait()
    writer.put([3], tmp_path / "c.pt")
    writer.wait()
    assert torch.load(tmp_path / "c.pt") == [3]


def test_closing_ends_the_writer_though_a_forked_child_holds_its_socket(tmp_path):
    writer = Writer(FileTarget())
    writer.put([1], tmp_path / "a.pt")
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(writing)
        os.read(reading, 1)  # until this test is over
        os._exit(0)
    try:
        writer.close()
        assert torch.load(tmp_path / "a.pt") == [1]
    finally:
        os.close(writing)
        os.close(reading)
        os.waitpid(child, 0)


TRAINER = """
import os, signal, sys, torch
from pathlib import Path
from curitorch.external.stores.saving.background import BackgroundWriter
from curitorch.external.stores.saving.target import FileTarget
writer = BackgroundWriter(FileTarget())
state = [torch.zeros(1_000_000) for _ in range(4)]
folder = Path(sys.argv[1])
step = 0
while True:
    step += 1
    for tensor in state:
        tensor.fill_(step)
    request = {"path": str(folder / f"{step:06d}.pt"), "step": step, "details": {}}
    writer.save({"step": step, "state": state}, request, what="Saving")
    if step == 3:
        print("saving", flush=True)
"""


def killed_while_saving(trainers, folder: Path, delay: float) -> int:
    """Kill a trainer in the middle of its saves; returns how many whole files there are."""
    with trainers.start(TRAINER, str(folder)) as trainer:
        assert trainer.said.readline() == "saving\n"
        time.sleep(delay)
        trainers.kill(trainer)
        assert trainer.said.read() == ""  # its writer has ended too, with what it was given
    assert list(folder.glob(f"{TEMPORARY_PREFIX}*")) == []
    files = sorted(folder.glob("*.pt"))
    for path in files:
        assert single_file.verify(path).step == int(path.stem)
        content = torch.load(path)
        assert int(path.stem) == content["step"]
        assert all(bool((tensor == content["step"]).all()) for tensor in content["state"])
    assert [int(path.stem) for path in files] == list(range(1, len(files) + 1))
    return len(files)


def test_kill_9_of_the_trainer_loses_at_most_the_save_under_way_and_tears_nothing(
    tmp_path, trainers
):
    for moment in range(5):
        folder = tmp_path / str(moment)
        folder.mkdir()
        assert killed_while_saving(trainers, folder, delay=moment * 0.013) >= 2


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_kill_9_of_the_trainer_at_many_moments(tmp_path, trainers):
    for moment in range(40):
        folder = tmp_path / str(moment)
        folder.mkdir()
        assert killed_while_saving(trainers, folder, delay=moment * 0.004) >= 2
        for path in folder.iterdir():
            path.unlink()
