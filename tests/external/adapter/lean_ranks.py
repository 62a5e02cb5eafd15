"""Lean fits in each of several processes, compared with our Lightning engine's: FOLDER CASE…

A case is one of resume_matrix's: trained by both engines, then resumed after every third step. The
case "a signal to one rank" stops all ranks at one step by a SIGTERM that the last rank gets.
"""

import importlib.util
import os
import signal
import sys
import warnings
from pathlib import Path

import torch
from lightning.pytorch import LightningModule
from torch.utils.data import DataLoader, TensorDataset

from curitorch.external.adapter import LeanTrainer, talk
from curitorch.external.groups import groups_left
from curitorch.external.stop import TrainingStopped
from curitorch.external.stores import LocalStore
from curitorch.params import CheckpointParams


def load(name, path):
    spec = importlib.util.spec_from_file_location(name, path)
    found = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


HERE = Path(__file__).parent
checkpoints = load("lean_checkpoints", HERE / "test_checkpoints.py")
matrix = checkpoints.matrix
RANK = int(os.environ["RANK"])
talk.LONGEST = 100  # a stop comes in time, however fast this machine is


def compare(name, folder):
    """Return what differs between the engines, and after resumes."""
    case = matrix.RANKS_CASES[name]
    whole = matrix.fit(case)
    found = [] if matrix.same(whole, checkpoints.fit(case)) else [f"{name}: the engines differ"]
    saved = checkpoints.fit(case, store=LocalStore(folder))
    if not matrix.same(whole, saved):
        found.append(f"{name}: saving is noticed")
    for file in sorted(folder.glob("*/model.ckpt"))[:-1:3]:
        resumed = last(checkpoints.fit(case, resume=file))
        if not matrix.same(last(whole, of=len(resumed["entries"])), resumed):
            found.append(f"{name}: resumed after {file.parent.name}")
    return found


def last(outcome, of=None):
    """Return what became of a training, with its last entries alone, and those of no beginning."""
    entries = [each for each in outcome["entries"] if each[0] != "on_train_start"]
    return {**outcome, "entries": entries[-of:] if of else entries}


class Net(LightningModule):
    """Sends its last rank a signal in one training or validation step."""

    def __init__(self, step=None, hook="training_step"):
        super().__init__()
        torch.manual_seed(0)
        self.layer, self.step, self.hook = torch.nn.Linear(2, 1), step, hook

    def send(self, hook):
        is_last = self.trainer.global_rank == self.trainer.world_size - 1
        if is_last and hook == self.hook and self.step == self.global_step:
            os.kill(os.getpid(), signal.SIGTERM)

    def training_step(self, batch, batch_idx):
        self.send("training_step")
        return self.layer(batch[0]).pow(2).mean()

    def validation_step(self, batch, batch_idx):
        if not self.trainer.sanity_checking:
            self.send("validation_step")

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), 0.1)


def stopping(net, folder):
    """Train; return the stop if there was one, and the weights."""
    data = TensorDataset(torch.randn(160, 2, generator=torch.Generator().manual_seed(0)))
    policy = CheckpointParams(every_n_steps=50, every_n_epochs=None)
    trainer = LeanTrainer(max_epochs=40, accelerator="cpu", seed=1, store=folder, checkpoint=policy)
    loaders = DataLoader(data, 8, shuffle=True), DataLoader(data, 8)
    stop = None
    try:
        trainer.fit(net, *loaders, ckpt_path="last")
    except TrainingStopped as stopped:
        stop = stopped
    return stop, torch.cat([each.detach().flatten() for each in net.parameters()])


def signals(folder):
    """Return what is wrong with a stop of all ranks that one was asked for."""
    whole, found = stopping(Net(), folder / "whole")[1], []
    for hook, step in (("training_step", 33), ("validation_step", 60)):
        stop, _ = stopping(Net(step, hook), folder / hook)
        if stop is None or not stop.saved or stop.reason != "SIGTERM":
            found.append(f"{hook}: stopped {stop}")
            continue
        steps = [None, None]
        torch.distributed.all_gather_object(steps, stop.step)
        if steps[0] != steps[1] or steps[0] < step:
            found.append(f"{hook}: stopped at {steps}")
        resumed = stopping(Net(), folder / hook)[1]
        if not resumed.equal(whole):
            found.append(f"{hook}: the resume differs")
    return found


def main(folder, *names):
    warnings.simplefilter("ignore")
    found = []
    for name in names:
        place = Path(folder) / name.replace(" ", "_")
        found += signals(place) if name == "a signal to one rank" else compare(name, place)
    print(*(f"rank {RANK}: {each}" for each in found), sep="\n", flush=True)
    return len(found)


if __name__ == "__main__":
    with groups_left():
        sys.exit(main(*sys.argv[1:]))
