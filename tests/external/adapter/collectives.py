"""Two ranks that count the collectives of each step, of lean fits and of plain DDP: FOLDER.

Rank 0 writes `{"raw": [1, 1, …], "lean": [1, 1, …], "talking": [2, 2, …]}` there: how far gloo's
numbers of its operations, over all groups, went on from one step to the next. The ranks of "lean"
agreed to talk after a thousand steps, those of "talking" after each.
"""

import itertools
import json
import sys
from pathlib import Path

import torch
from lightning.pytorch import LightningModule
from torch import distributed
from torch.utils.data import DataLoader, TensorDataset

from curitorch.external.adapter import LeanTrainer, talk
from curitorch.external.stores import LocalStore
from curitorch.params import CheckpointParams

NUMBERS = []


def number():
    """Return how many operations all groups have begun."""
    groups = distributed.distributed_c10d._world.pg_map
    return sum(group._get_sequence_number_for_group() for group in groups)


class Net(LightningModule):
    """Counts as each step begins; logs, and does not ask for it to be over ranks."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(8, 4)

    def forward(self, batch):
        NUMBERS.append(number())
        return torch.nn.functional.cross_entropy(self.layer(batch[0]), batch[1])

    def training_step(self, batch, batch_idx):
        loss = self(batch)
        self.log("loss", loss, on_epoch=True)
        return loss

    def on_train_batch_end(self, outputs, batch, batch_idx):
        self.log("batch", batch_idx)

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters())


def counted():
    """Return what each step added, but the first four, in which DDP lays out its buckets."""
    found = [after - before for before, after in itertools.pairwise(NUMBERS)]
    NUMBERS.clear()
    return found[4:]


def main(folder):
    """Train twice and count."""
    distributed.init_process_group("gloo")
    data = TensorDataset(torch.randn(160, 8), torch.zeros(160, dtype=torch.long))
    plain = Net()
    plain.log = lambda *_, **__: None
    model = torch.nn.parallel.DistributedDataParallel(plain)
    optimizer = torch.optim.Adam(model.parameters())
    for batch in DataLoader(data, 8):
        optimizer.zero_grad()
        model(batch).backward()
        optimizer.step()
    found = {"raw": counted()}
    for name, talk.SECONDS in (("lean", 1e9), ("talking", 0.0)):
        LeanTrainer(
            accelerator="cpu", strategy="ddp", devices=2, max_epochs=1, enable_progress_bar=False,
            store=LocalStore(folder / name),
            checkpoint=CheckpointParams(every_n_steps=1000, every_n_epochs=None),
        ).fit(Net(), DataLoader(data, 8))  # fmt: skip
        found[name] = counted()
    if distributed.get_rank() == 0:
        (folder / "counted.json").write_text(json.dumps(found))
    distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
