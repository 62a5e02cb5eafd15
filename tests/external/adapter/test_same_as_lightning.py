"""Weights, optimizer states, schedules and logged values are those of Lightning's Trainer.

One process, the same order of samples: a loader that does not shuffle, or our order given to
Lightning's Trainer as well, with the generators seeded where ours seeds them.
"""

import random
import warnings

import numpy as np
import pytest
import torch
import torchmetrics
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.loggers.logger import DummyLogger
from lightning.pytorch.utilities.combined_loader import CombinedLoader
from torch import nn
from torch.optim.lr_scheduler import OneCycleLR, ReduceLROnPlateau, StepLR
from torch.utils.data import DataLoader, Dataset, default_collate

from curitorch.external.adapter import LeanTrainer
from curitorch.external.exact.loaders import put_in_order
from curitorch.external.refused import Refused


@pytest.fixture(autouse=True)
def _quietly():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


class Kept(DummyLogger):
    def __init__(self):
        super().__init__()
        self.written = []

    def log_metrics(self, metrics, step=None):
        self.written.append((step, dict(metrics)))


class Noisy(Dataset):
    """Samples with an augmentation drawn from all three generators."""

    def __init__(self, count, seed, is_noisy):
        generator = torch.Generator().manual_seed(seed)
        self.inputs = torch.randn(count, 6, generator=generator)
        self.is_noisy = is_noisy

    def __len__(self):
        return len(self.inputs)

    def __getitem__(self, index):
        inputs = self.inputs[index]
        target = inputs.argmax() % 3
        if self.is_noisy:
            inputs = inputs + 0.1 * torch.rand(6) + random.random() * np.random.rand()
        return inputs.float(), target


class Data(LightningDataModule):
    def __init__(self, *, shuffle=False, is_noisy=False, workers=0):
        super().__init__()
        self.options = {"shuffle": shuffle, "num_workers": workers}
        self.is_noisy = is_noisy

    def train_dataloader(self):
        return DataLoader(Noisy(42, 0, self.is_noisy), batch_size=4, **self.options)

    def val_dataloader(self):
        return DataLoader(Noisy(13, 1, False), batch_size=4)


class Classifier(LightningModule):
    def __init__(self, schedule="", dropout=0.0):
        super().__init__()
        self.schedule = schedule
        self.layers = nn.Sequential(
            nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(dropout), nn.Linear(16, 3)
        )
        self.accuracy = torchmetrics.MeanMetric()
        self.highest = torchmetrics.MaxMetric()

    def training_step(self, batch, batch_idx):
        logits = self.layers(batch[0])
        loss = nn.functional.cross_entropy(logits, batch[1])
        self.log("loss", loss, on_epoch=True, prog_bar=True)
        self.accuracy((logits.argmax(1) == batch[1]).float())
        self.log("accuracy", self.accuracy, on_step=True, on_epoch=True)
        self.log_dict({"low": loss, "of": float(batch_idx)}, reduce_fx="min", on_epoch=True)
        return loss

    def validation_step(self, batch, batch_idx):
        logits = self.layers(batch[0])
        self.log("val_loss", nn.functional.cross_entropy(logits, batch[1]))
        self.highest.update(logits.max())
        self.log("highest", self.highest)

    def on_train_epoch_end(self):
        self.log("epochs", float(self.current_epoch))

    def configure_optimizers(self):
        optimizer = torch.optim.AdamW(self.parameters(), lr=0.01)
        if self.schedule == "step":
            scheduler = OneCycleLR(
                optimizer, 0.1, total_steps=self.trainer.estimated_stepping_batches
            )
            return [optimizer], [{"scheduler": scheduler, "interval": "step"}]
        if self.schedule == "epoch":
            return {"optimizer": optimizer, "lr_scheduler": StepLR(optimizer, 1)}
        if self.schedule == "plateau":
            scheduler = ReduceLROnPlateau(optimizer, patience=0, threshold=0.2)
            return {
                "optimizer": optimizer,
                "lr_scheduler": {"scheduler": scheduler, "monitor": "val_loss"},
            }
        return optimizer


class Gan(LightningModule):
    """Two optimizers that take turns, by hand."""

    def __init__(self):
        super().__init__()
        self.automatic_optimization = False
        self.generator, self.judge = nn.Linear(4, 6), nn.Linear(6, 1)

    def training_step(self, batch, batch_idx):
        first, second = self.optimizers()
        real = batch[0]
        self.toggle_optimizer(first)
        loss = -self.judge(self.generator(torch.randn(len(real), 4))).mean()
        self.log("generator", loss)
        first.zero_grad()
        self.manual_backward(loss)
        first.step()
        self.untoggle_optimizer(first)
        with second.toggle_model(sync_grad=True):
            fake = self.generator(torch.randn(len(real), 4)).detach()
            loss = self.judge(fake).mean() - self.judge(real).mean()
            self.log("judge", loss, on_epoch=True)
            second.zero_grad()
            self.manual_backward(loss)
            self.clip_gradients(second, gradient_clip_val=0.5)
            second.step()
        if self.trainer.is_last_batch:
            self.lr_schedulers().step()

    def configure_optimizers(self):
        first = torch.optim.Adam(self.generator.parameters(), lr=0.01)
        second = torch.optim.SGD(self.judge.parameters(), lr=0.01, momentum=0.9)
        return [first, second], [StepLR(first, 1)]


class LogsEverywhere(Classifier):
    """Logs within other hooks, under its own name in each, and looks at its trainer early."""

    def on_fit_start(self):
        self.validates = float(self.trainer.enable_validation)

    def optimizer_step(self, epoch, batch_idx, optimizer, optimizer_closure=None):
        self.log("stepping", self.validates)
        super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)

    def backward(self, loss):
        self.log("backward", loss, on_epoch=True)
        loss.backward()

    def optimizer_zero_grad(self, epoch, batch_idx, optimizer):
        self.log("zeroing", float(batch_idx))
        optimizer.zero_grad()


class Gaps(Data):
    """Has nothing for some batches."""

    def train_dataloader(self):
        def collate(samples):
            batch = default_collate(samples)
            return None if batch[0][0, 0] > 0.5 else batch

        return DataLoader(Noisy(42, 0, False), batch_size=4, collate_fn=collate)


def trained(kind, made, data, *, ordered, **options):
    """Return all that a training leaves: bits of weights and states, and what was logged."""
    torch.manual_seed(0)
    module, datamodule, logger = made(), Gaps() if data == "gaps" else Data(**data), Kept()
    torch.manual_seed(1)
    options = {"accelerator": "cpu", "logger": logger, "log_every_n_steps": 3, **options}
    options = {"max_epochs": 3, **options}
    if kind == "lightning":
        trainer = Trainer(
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            **options,
        )
        if ordered:
            put_in_order(datamodule, trainer, batch_size=None, seed=7)
    else:
        trainer = LeanTrainer(seed=7, **options)
    trainer.fit(module, datamodule=datamodule)
    inner = module.trainer
    return {
        "weights": bits(module.state_dict()),
        "optimizers": [bits(each.state_dict()) for each in inner.optimizers],
        "schedulers": [bits(c.scheduler.state_dict()) for c in inner.lr_scheduler_configs],
        "logged": bits(logger.written),
        "callback_metrics": bits(dict(trainer.callback_metrics)),
        "steps": trainer.global_step,
    }


def bits(value):
    if isinstance(value, torch.Tensor):
        return str(value.dtype), value.detach().contiguous().view(-1).view(
            torch.uint8
        ).numpy().tobytes()
    if isinstance(value, dict):
        return {key: bits(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [bits(item) for item in value]
    return value.hex() if isinstance(value, float) else str(value)


ORDERLY = {
    "plain": {},
    "schedule by step": {"schedule": "step"},
    "schedule by epoch": {"schedule": "epoch"},
    "plateau": {"schedule": "plateau", "max_epochs": 5},
    "accumulation": {"accumulate_grad_batches": 3, "schedule": "step"},
    "clipping by norm": {"gradient_clip_val": 0.2},
    "clipping by value": {"gradient_clip_val": 0.01, "gradient_clip_algorithm": "value"},
    "bf16": {"precision": "bf16-mixed"},
    "bf16 true": {"precision": "bf16-true"},
    "double": {"precision": "64-true"},
    "validation mid-epoch": {"val_check_interval": 4, "schedule": "plateau"},
}


@pytest.mark.parametrize("case", ORDERLY, ids=[case.replace(" ", "-") for case in ORDERLY])
def test_training_in_the_given_order_is_the_same_to_the_bit(case):
    options = dict(ORDERLY[case])
    schedule = options.pop("schedule", "")

    def made():
        return Classifier(schedule)

    theirs = trained("lightning", made, {}, ordered=False, **options)
    ours = trained("ours", made, {}, ordered=False, **options)
    assert theirs["steps"] > 10
    assert len(theirs["logged"]) >= 10
    for part in theirs:
        assert ours[part] == theirs[part], part


@pytest.mark.parametrize(
    ("made", "data"), [(LogsEverywhere, {}), (Classifier, "gaps")], ids=["logs-everywhere", "gaps"]
)
def test_odd_projects_are_the_same_to_the_bit(made, data):
    theirs = trained("lightning", made, data, ordered=False, log_every_n_steps=1)
    ours = trained("ours", made, data, ordered=False, log_every_n_steps=1)
    for part in theirs:
        assert ours[part] == theirs[part], part


def test_loaders_one_after_the_other_are_no_training_data():
    loaders = CombinedLoader([Data().train_dataloader()] * 2, "sequential")
    with pytest.raises(Refused, match="one loader's batches after the other's"):
        LeanTrainer(max_epochs=1, accelerator="cpu").fit(Classifier(), loaders)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("made", [Classifier, Gan], ids=["classifier", "gan"])
def test_shuffled_noisy_training_with_dropout_is_the_same_in_our_order(made, workers):
    def build():
        return Classifier(dropout=0.5) if made is Classifier else Gan()

    data = {"shuffle": True, "is_noisy": True, "workers": workers}
    theirs = trained("lightning", build, data, ordered=True)
    ours = trained("ours", build, data, ordered=True)
    for part in theirs:
        assert ours[part] == theirs[part], part
