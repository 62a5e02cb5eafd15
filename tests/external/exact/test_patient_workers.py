"""Signals to every process there is, as scancel and Ctrl-C send: the rank saves, workers live."""

import contextlib
import os
import signal
import subprocess
import sys
import time

import pytest

from curitorch.external.journal import read_journal
from curitorch.external.rundir import TrainingRun

PROJECT = """
import time
import torch
from lightning.pytorch import LightningModule
from torch.utils.data import DataLoader, Dataset


class Slow(Dataset):
    def __len__(self):
        return 400

    def __getitem__(self, index):
        time.sleep(0.01)
        return torch.tensor([float(index)])


def indexed():
    return DataLoader(Slow(), 4, num_workers=2)


class OwnLoader(DataLoader):
    pass


def own_loader():
    return OwnLoader(Slow(), 4, num_workers=2)


class Net(LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)

    def training_step(self, batch, batch_idx):
        return self.layer(batch / 400).square().mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)
"""


@pytest.mark.parametrize(
    ("program", "data", "number"),
    [
        ("lean_trainer", "indexed", signal.SIGTERM),
        ("trainer", "own_loader", signal.SIGINT),
    ],
)
def test_a_signal_to_all_processes_lets_the_rank_save(tmp_path, program, data, number):
    (tmp_path / "net.py").write_text(PROJECT)
    words = [f"--data=net:{data}", "--model=net:Net", "--epochs=999", "--run_dir=run"]
    with (tmp_path / "output").open("wb") as output:
        rank = subprocess.Popen(
            [sys.executable, "-m", f"curitorch.external.{program}", *words, "--accelerator=cpu"],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(tmp_path), "OMP_NUM_THREADS": "1"},
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    journal = tmp_path / "run/journal.jsonl"
    while not journal.exists() or journal.read_text().count('"step"') < 12:
        assert rank.poll() is None, (tmp_path / "output").read_text()
        time.sleep(0.05)
    os.killpg(rank.pid, number)
    assert rank.wait(timeout=200) == 128 + number, (tmp_path / "output").read_text()
    stop = read_journal(journal)[-1]
    assert stop["event"] == "stop"
    assert TrainingRun(tmp_path / "run").newest_checkpoint().step == stop["step"]
    with contextlib.suppress(ProcessLookupError):  # once nobody is left; some end behind the rank
        while True:
            os.killpg(rank.pid, 0)
            time.sleep(0.05)


STUCK = """
import os, signal, sys, time
import torch
from torch.utils.data import DataLoader
from curitorch.external.exact.patient_workers import patient_workers

class Stuck(torch.utils.data.Dataset):
    def __len__(self):
        return 8

    def __getitem__(self, index):
        if index >= 4:
            time.sleep(600)
        return index

def first(worker):
    print("user's", worker, flush=True)

if __name__ == "__main__":
    loader = DataLoader(
        Stuck(), 4, num_workers=1, worker_init_fn=first, multiprocessing_context=sys.argv[1]
    )
    with patient_workers(loader):
        batches = iter(loader)
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, [])
    worker = batches._workers[0]
    os.system(f"kill {worker.pid}")
    assert next(batches).tolist() == [0, 1, 2, 3]
    os.system(f"kill {worker.pid}")
    time.sleep(0.2)
    assert worker.is_alive()
    worker.terminate()
    worker.join(120)
    print("ended", worker.exitcode, flush=True)
    os._exit(0)
"""


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_a_worker_that_is_stuck_is_ended_by_its_rank_alone(tmp_path, start):
    script = tmp_path / "stuck.py"
    script.write_text(STUCK)
    done = subprocess.run(
        [sys.executable, str(script), start],
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "user's 0\nended 0\n"), done.stderr
