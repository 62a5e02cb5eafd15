"""Lean fits of many kinds, in any number of processes: world_fits.py PLAN.json

The plan is a list of fits, {"case": …, "steps": …, "from": …, "to": …, "options": …}: train the
case until it is asked to stop after so many optimizer steps (None: to the end), from a checkpoint
of the store `from` if it has one, saving into the store `to`. Rank 0 writes what became of each to
`to`/outcome.pt.
"""

import contextlib
import json
import os
import random
import shutil
import sys
import unittest.mock
import warnings
from pathlib import Path

import numpy as np
import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.loggers.logger import DummyLogger
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics import MeanMetric
from torchmetrics.classification import BinaryAccuracy

from curitorch.external.adapter import LeanTrainer
from curitorch.external.groups import groups_left
from curitorch.external.state_files import newest_state
from curitorch.external.stop import TrainingStopped
from curitorch.external.stores import LocalStore
from curitorch.params import CheckpointParams

SAMPLES, BATCH = 46, 8  # the last global batch has 6


class Net(LightningModule):
    """Every feature that a case may switch on."""

    def __init__(
        self, *, norm="none", scheduler="step", noise=False, skips=False, counts=False, stop_at=0
    ):
        super().__init__()
        norms = {"none": torch.nn.Identity, "layer": lambda: torch.nn.LayerNorm(16)}
        self.layers = torch.nn.Sequential(
            torch.nn.Linear(3, 16), norms[norm](), torch.nn.Tanh(), torch.nn.Dropout(0.3),
            torch.nn.Linear(16, 1),
        )  # fmt: skip
        self.mean, self.right = MeanMetric(), BinaryAccuracy() if counts else None
        self.rare = torch.nn.Linear(3, 1)
        self.scheduler, self.noise, self.skips = scheduler, noise, skips
        self.stop_at, self.stop, self.fail_at = stop_at, None, None

    def training_step(self, batch, batch_idx):
        x, y = batch
        if self.global_step == self.fail_at:
            raise ArithmeticError("the loss is no number")
        if self.noise:
            x = x + torch.randn_like(x) + random.random() + np.random.rand()
        out = self.layers(x)
        if self.skips and float(x[0, 0]) > 0.5:
            out = out + self.rare(x)  # some grains have no gradient for it
        loss = torch.nn.functional.mse_loss(out, y)
        self.log("loss", loss, on_step=True, on_epoch=True)
        if self.right is not None:
            self.right.update(out > 0, y > 0)
            self.log("right", self.right, on_step=False, on_epoch=True)
        if float(x[0, 1]) > 1:
            self.log("rare", loss, on_epoch=True)  # by some processes alone
        return loss

    def on_after_backward(self):
        self.log("gradient", self.layers[0].weight.grad.norm(), on_epoch=True, reduce_fx="max")

    def on_train_batch_start(self, batch, batch_idx):
        self.log("first", batch[0].mean(), on_epoch=True, reduce_fx="sum")

    def on_train_batch_end(self, outputs, batch, batch_idx):
        self.log("last", outputs["loss"], on_epoch=True, reduce_fx="min")
        is_last = self.global_rank == self.trainer.world_size - 1
        if is_last and self.global_step == self.stop_at:
            self.stop.reason = "SIGTERM"
        if self.noise:
            with torch.no_grad():
                self.layers[0].bias.add_(torch.randn(16), alpha=1e-3)

    def validation_step(self, batch, batch_idx):
        x, y = batch
        loss = torch.nn.functional.mse_loss(self.layers(x), y)
        self.mean.update(loss)
        self.log("val_loss", loss, sync_dist=True)
        self.log("mean", self.mean, on_epoch=True)

    def configure_optimizers(self):
        optimizer = torch.optim.AdamW(self.parameters(), lr=0.05)
        lr = torch.optim.lr_scheduler
        made = {
            "step": lambda: {"scheduler": lr.StepLR(optimizer, 2, 0.9), "interval": "step"},
            "every other": lambda: {
                "scheduler": lr.StepLR(optimizer, 1, 0.9), "interval": "step", "frequency": 2,
            },
            "plateau": lambda: {
                "scheduler": lr.ReduceLROnPlateau(optimizer, patience=0, threshold=0.5),
                "monitor": "mean",
            },
            "plateau by step": lambda: {
                "scheduler": lr.ReduceLROnPlateau(optimizer, patience=1, threshold=0.5),
                "monitor": "val_loss", "interval": "step", "strict": False,
            },
            "plateau by what steps log": lambda: {
                "scheduler": lr.ReduceLROnPlateau(optimizer, patience=0, threshold=0.5),
                "monitor": "loss_epoch",
            },
        }  # fmt: skip
        return {"optimizer": optimizer, "lr_scheduler": made[self.scheduler]()}


class Written(DummyLogger):
    """Keeps what it is given."""

    def __init__(self):
        super().__init__()
        self.written = []

    def log_metrics(self, metrics, step=None):
        self.written.append((step, dict(metrics)))


class Augmented(TensorDataset):
    def __getitem__(self, index):
        x, y = super().__getitem__(index)
        return x + torch.randn(3) + np.random.rand() + random.random(), y


def data(samples=SAMPLES, *, augmented=False, **options):
    generator = torch.Generator().manual_seed(7)
    tensors = [torch.randn(samples, n, generator=generator) for n in (3, 1)]
    kind = Augmented if augmented else TensorDataset
    return DataLoader(kind(*tensors), **{"batch_size": BATCH, "shuffle": True, **options})


CASES = {
    "plain": {},
    "in order, a full last batch": {"data": {"shuffle": False, "samples": 40}},
    "without the last batch": {"data": {"drop_last": True}},
    "noise and augmentation": {"net": {"noise": True}, "data": {"augmented": True}},
    "noise, stopped by the last rank": {
        "net": {"noise": True, "stop_at": 2},
        "data": {"augmented": True},
    },
    "counts in training": {"net": {"counts": True}},
    "workers": {"data": {"augmented": True, "num_workers": 1}},
    "persistent workers": {
        "data": {"augmented": True, "num_workers": 2, "persistent_workers": True}
    },
    "clipping": {"trainer": {"gradient_clip_val": 0.05}},
    "bf16": {"net": {"norm": "layer"}, "trainer": {"precision": "bf16-mixed"}},
    "double precision": {"trainer": {"precision": "64-true"}},
    "a parameter that not every grain uses": {"net": {"skips": True}},
    "every other step": {"net": {"scheduler": "every other"}},
    "plateau": {"net": {"scheduler": "plateau"}},
    "plateau by step": {
        "net": {"scheduler": "plateau by step"},
        "trainer": {"val_check_interval": 2},
    },
    "plateau by what steps log": {"net": {"scheduler": "plateau by what steps log"}},
    "validation by steps": {"trainer": {"val_check_interval": 2}, "net": {"noise": True}},
    "limits": {"trainer": {"limit_train_batches": 4, "limit_val_batches": 2}},
    "a share of an epoch": {"trainer": {"limit_train_batches": 0.7, "val_check_interval": 0.5}},
    "small grains": {"trainer": {"grain": 1}, "data": {"samples": 40}},
    "a batch size of the trainer's": {"trainer": {"batch_size": 12, "grain": 3}},
}


def fit(
    case, *, steps=None, source=None, target=None, exact="world", every=None, asynchronous=False,
    clip=torch.nn.utils.clip_grad_norm_, **options,
):  # fmt: skip
    """Train `case`; returns weights, optimizer and scheduler states, and counters."""
    warnings.filterwarnings("ignore")
    torch.manual_seed(1)
    net = Net(**case.get("net", {}))
    logger = Written()
    net.fail_at = options.pop("fail_at", None)
    net.stop_at, every = (net.stop_at, every) if steps is None else (steps, 1)
    trainer = LeanTrainer(
        max_epochs=2, accelerator="cpu", seed=3, exact=exact, store=target, num_sanity_val_steps=0,
        checkpoint=CheckpointParams(
            every_n_steps=every, every_n_epochs=None, keep=0, asynchronous=asynchronous
        ),
        logger=logger, log_every_n_steps=2,
        **{**case.get("trainer", {}), **options},
    )  # fmt: skip
    newest = None if source is None else newest_state(LocalStore(source), Path(source))
    loaders = data(**case.get("data", {})), data(20, shuffle=False)
    net.stop = trainer.stop
    with contextlib.suppress(TrainingStopped, ArithmeticError), clipped_by(clip):
        trainer.fit(net, *loaders, ckpt_path=newest and newest[1])
    made = trainer.last_fit.trainer
    return {
        "step": trainer.global_step,
        "epoch": trainer.current_epoch,
        "weights": {name: whole(value) for name, value in net.state_dict().items()},
        "optimizers": [whole(each.state_dict()) for each in made.optimizers],
        "schedulers": [each.scheduler.state_dict() for each in made.lr_scheduler_configs],
        "metrics": whole(dict(trainer.callback_metrics)),
        "logged": logger.written[-2:],
    }


def by_parts(parameters, max_norm):
    """Clip as FSDP2 does, whose processes square, add up and root the norms of their parts."""
    norm, ranks = torch.linalg.vector_norm, torch.distributed.get_world_size()
    gradients = [each.grad for each in parameters if each.grad is not None]
    norms = [sum(norm(part) ** 2 for part in each.chunk(ranks)) ** 0.5 for each in gradients]
    torch.nn.utils.clip_grads_with_norm_(parameters, max_norm, norm(torch.stack(norms)))


def clipped_by(clip):
    clip = by_parts if clip == "by parts" else clip
    return unittest.mock.patch.object(torch.nn.utils, "clip_grad_norm_", clip)


def whole(value):
    """Return `value` with tensors as this process alone would have them, not in parts."""
    if isinstance(value, dict):
        return {name: whole(item) for name, item in value.items()}
    value = value.full_tensor() if hasattr(value, "full_tensor") else value
    return value.clone() if isinstance(value, torch.Tensor) else value


def same(one, other):
    """Compare bitwise whatever is nested in lists and dictionaries."""
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and one.numpy().tobytes() == other.numpy().tobytes()
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[k], other[k]) for k in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


def run(plan, folder):
    """Do the fits of a plan in this process, one of those that torchrun started."""
    torch.set_num_threads(1)
    for each in plan:
        source, target = (each.get(name) and folder / each[name] for name in ("from", "to"))
        if "only until" in each:
            copy_until(each["only until"], source, target)
            continue
        case = CASES[each["case"]]
        found = fit(
            case, steps=each.get("steps"), source=source, target=target, **each.get("options", {})
        )
        if int(os.environ.get("RANK", 0)) == 0:
            torch.save(found, target / "outcome.pt")


def copy_until(step, source, target):
    """Copy a store as it was after so many steps."""
    if int(os.environ.get("RANK", 0)) == 0:
        shutil.copytree(source, target)
        store = LocalStore(target)
        for each in store.list():
            if each.step > step:
                store.delete(each.step)
    if torch.distributed.is_initialized():
        torch.distributed.barrier()


def outcome(folder):
    return torch.load(folder / "outcome.pt", weights_only=False)


if __name__ == "__main__":
    with groups_left():
        run(json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[1]).parent)
