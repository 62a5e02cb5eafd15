"""Lean fits that validate by the clock, in processes whose clocks are not the same: FOLDER.

Rank 1's goes three times as fast as rank 0's. Each rank writes the steps at which it validated, and
the batches that it saw there, to FOLDER/<rank>.json.
"""

import json
import os
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace

import torch
from lightning.pytorch import LightningModule
from torch.utils.data import DataLoader, TensorDataset

from curitorch.external.adapter import LeanTrainer, talk, validation_clock
from curitorch.external.groups import groups_left
from curitorch.params import CheckpointParams

RANK = int(os.environ["RANK"])
SECONDS_A_STEP = (1.0, 3.0)[RANK]


class Net(LightningModule):
    def __init__(self, clock):
        super().__init__()
        torch.manual_seed(0)
        self.layer = torch.nn.Linear(2, 1)
        self.clock, self.validations, self.batches = clock, [], 0

    def training_step(self, batch, batch_idx):
        self.clock.now += SECONDS_A_STEP
        return self.layer(batch[0]).pow(2).mean()

    def validation_step(self, batch, batch_idx):
        self.batches += 1
        self.log("val_loss", self.layer(batch[0]).pow(2).mean(), sync_dist=True)

    def on_validation_end(self):
        self.validations.append([self.global_step, self.batches])
        self.batches = 0

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), 0.1)


def fit(folder=None, *, begins=0.0, **options):
    """Train for two epochs of 12 steps; returns where it validated, every 7 seconds."""
    clock = SimpleNamespace(now=begins)
    validation_clock.time = SimpleNamespace(monotonic=lambda: clock.now)
    data = TensorDataset(torch.randn(96, 2, generator=torch.Generator().manual_seed(0)))
    trainer = LeanTrainer(
        accelerator="cpu", val_check_interval={"seconds": 7}, num_sanity_val_steps=0, store=folder,
        checkpoint=CheckpointParams(every_n_epochs=None), enable_progress_bar=False,
        **{"max_epochs": 2, **options},
    )  # fmt: skip
    net = Net(clock)
    trainer.fit(
        net, DataLoader(data, 8), DataLoader(data, 48), ckpt_path="last" if folder else None
    )
    return net.validations


def main(folder):
    warnings.simplefilter("ignore")
    talk.SECONDS = 0.0  # at each batch, however fast this machine is
    found = {"whole": fit()}
    found["first"] = fit(folder / "store", max_steps=5)
    found["rest"] = fit(folder / "store", begins=1000.0)  # another boot of the machine
    talk.Talk.pause = lambda self, count: (2, 5)[RANK]
    found["seldom"] = fit()
    (folder / f"{RANK}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    with groups_left():
        main(Path(sys.argv[1]))
