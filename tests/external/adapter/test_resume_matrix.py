"""Every engine and level, with every kind of data, stopped anywhere, ends bitwise as unstopped.

The loader in order or shuffled, with workers or without, dropout, random augmentation, accumulated
gradients (in exact="world": grains), stopped within an epoch, at its end and behind it, on the lean
engine at both levels and on Lightning's Trainer. One of twelve is tried in the fast suite.
"""

import itertools
import warnings

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from torchmetrics import MeanMetric

from curitorch.external.adapter import LeanTrainer
from curitorch.external.exact.exact_data import exact_data
from curitorch.external.stores import LocalStore, PeriodicCheckpoint
from curitorch.params import CheckpointParams
from tests.external.adapter import world_fits as fits

POLICY = CheckpointParams(every_n_steps=1, every_n_epochs=None, keep=0)
STOPS = {1: (2, 6, 7), 3: (1, 2, 3)}  # in 12 or 4 steps of two epochs: within, at its end, behind
ENGINES = ("lean, rank", "lean, world", "lightning")
AXES = {
    "engine": ENGINES,
    "data": ("in order", "shuffled"),
    "workers": (0, 1),
    "random": ("nothing", "dropout", "dropout and augmentation"),
    "accumulate": (1, 3),
}


class Net(LightningModule):
    """Dropout, logged means, a metric and a scheduler."""

    def __init__(self, dropout, monitor):
        super().__init__()
        self.layers = torch.nn.Sequential(
            torch.nn.Linear(3, 8), torch.nn.Tanh(), torch.nn.Dropout(dropout), torch.nn.Linear(8, 1)
        )
        self.mean, self.monitor = MeanMetric(), monitor

    def training_step(self, batch, batch_idx):
        loss = torch.nn.functional.mse_loss(self.layers(batch[0]), batch[1])
        self.mean.update(loss.detach())
        self.log("loss", loss, on_step=True, on_epoch=True)
        self.log("mean", self.mean, on_step=False, on_epoch=True)
        return loss

    def validation_step(self, batch, batch_idx):
        loss = torch.nn.functional.mse_loss(self.layers(batch[0]), batch[1])
        self.log("val_loss", loss + torch.rand(()))

    def configure_optimizers(self):
        optimizer = torch.optim.AdamW(self.parameters(), 0.05)
        plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=0)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": plateau, "monitor": self.monitor},
        }


def train(case, *, store=None, resume=None):
    """Train a case; return everything that can be compared."""
    warnings.filterwarnings("ignore")
    torch.manual_seed(1)
    monitor = "val_loss" if case["engine"] == "lean, world" else "loss"
    net = Net(0.4 if "dropout" in case["random"] else 0.0, monitor)
    loader = fits.data(
        shuffle=case["data"] == "shuffled",
        num_workers=case["workers"],
        augmented="augmentation" in case["random"],
    )
    validation = fits.data(12, shuffle=False)
    common = {"max_epochs": 2, "accelerator": "cpu", "num_sanity_val_steps": 0}
    every = case["accumulate"]
    if case["engine"] == "lightning":
        trainer = Trainer(
            **common, accumulate_grad_batches=every, logger=False, enable_checkpointing=False,
            enable_progress_bar=False, enable_model_summary=False,
            callbacks=[] if store is None else [PeriodicCheckpoint(store, POLICY)],
        )  # fmt: skip
        trainer.fit(net, exact_data((loader, validation), seed=3), ckpt_path=resume)
        optimizers, schedulers = trainer.optimizers, trainer.lr_scheduler_configs
    else:
        level = {"exact": "world", "grain": fits.BATCH if every == 1 else 2}
        if case["engine"] == "lean, rank":
            level = {"exact": "rank", "accumulate_grad_batches": every}
        trainer = LeanTrainer(**common, **level, seed=3, store=store, checkpoint=POLICY)
        trainer.fit(net, loader, validation, ckpt_path=resume)
        made = trainer.last_fit.trainer
        optimizers, schedulers = made.optimizers, made.lr_scheduler_configs
    return {
        "step": trainer.global_step,
        "epoch": trainer.current_epoch,
        "weights": {name: value.clone() for name, value in net.state_dict().items()},
        "optimizers": [each.state_dict() for each in optimizers],
        "schedulers": [each.scheduler.state_dict() for each in schedulers],
        "metrics": {name: float(v) for name, v in trainer.callback_metrics.items()},
    }


def cases():
    for number, values in enumerate(itertools.product(*AXES.values())):
        case = dict(zip(AXES, values, strict=True))
        # one that goes through all axes: engines have 24 each
        marks = [] if number % 13 == 0 else [pytest.mark.slow]
        yield pytest.param(case, id=", ".join(map(str, values)), marks=marks)


@pytest.mark.parametrize("case", [*cases()])
def test_a_training_stopped_anywhere_ends_bitwise_as_one_that_was_not(case, tmp_path):
    store = LocalStore(tmp_path)
    whole = train(case, store=store)
    steps = case["accumulate"] if case["engine"] != "lean, world" else 1
    stops = STOPS[steps]
    assert whole["step"] == {1: 12, 3: 4}[steps]
    assert {"loss_epoch", "mean", "val_loss"} <= whole["metrics"].keys()
    for step in stops:
        resumed = train(case, resume=tmp_path / f"step-{step:08d}" / "model.ckpt")
        assert fits.same(resumed, whole), step


def test_the_matrix_has_more_than_forty_cases_of_each_kind():
    found = [each.values[0] for each in cases()]
    assert len(found) == 72
    assert sum(len(STOPS[1]) for _ in found) == 216
    for axis, values in AXES.items():
        assert {each[axis] for each in found} == set(values)
