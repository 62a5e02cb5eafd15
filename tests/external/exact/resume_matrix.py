"""Trainings of many kinds by plain Lightning, which shall not notice that they were interrupted.

`fit` trains one case, from a checkpoint if there is one, and returns everything that can be
compared. Nothing of curitorch takes part but the callback and `exact_data`. As a program, in each
of several processes, it trains, resumes and compares: resume_matrix.py FOLDER CASE…
"""

import logging
import os
import random
import sys
import warnings
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import (
    EarlyStopping,
    GradientAccumulationScheduler,
    ModelCheckpoint,
)
from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.utilities import CombinedLoader
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    Sampler,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
)
from torchmetrics import MaxMetric, MeanMetric, MetricCollection, SumMetric
from torchmetrics.classification import (
    BinaryAccuracy,
    BinaryAUROC,
    BinaryF1Score,
    BinaryPrecision,
    BinaryRecall,
)
from torchmetrics.wrappers import MinMaxMetric, Running

from curitorch.external.exact.exact_data import exact_data
from curitorch.external.exact.exact_resume import KEY
from curitorch.external.stores import LocalStore, PeriodicCheckpoint
from curitorch.params import CheckpointParams

RANK, RANKS = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
SAMPLES, BATCH = {1: (18, 4), 2: (28, 8), 3: (21, 6)}[RANKS]  # the last batch is not full


class Recorder(Logger, Callback):
    """Remembers all that is logged or noted; a checkpoint says how much that was."""

    def __init__(self):
        super().__init__()
        self.entries, self.before_validation = [], 0

    name = version = "recorder"

    def log_hyperparams(self, *args, **kwargs):
        pass

    def log_metrics(self, metrics, step=None):
        self.entries.append((step, dict(metrics)))

    def on_validation_start(self, trainer, module):
        self.before_validation = len(self.entries)

    def state_dict(self):
        return {"entries": len(self.entries), "before_validation": self.before_validation}


class Net(LightningModule):
    """Every feature that a case may switch on."""

    def __init__(self, **features):
        super().__init__()
        self.features = features
        self.layers = torch.nn.Sequential(
            torch.nn.Linear(3, 8),
            torch.nn.BatchNorm1d(8) if features.get("batch_norm") else torch.nn.Identity(),
            torch.nn.Tanh(),
            torch.nn.Dropout(features.get("dropout", 0.0)),
            torch.nn.Linear(8, 1),
        )
        if features.get("metrics"):
            self.add_metrics()
        self.automatic_optimization = not features.get("manual")

    def add_metrics(self):
        self.accuracy = BinaryAccuracy()
        self.val_accuracy = BinaryAccuracy()
        self.val_best = MaxMetric()
        self.seen = SumMetric()
        self.val_mean = MeanMetric()
        self.curve = BinaryAUROC()  # keeps lists
        self.low_high = MinMaxMetric(BinaryAccuracy())
        self.recent = Running(MeanMetric(), window=3)
        group = MetricCollection([BinaryPrecision(), BinaryRecall(), BinaryF1Score()])
        self.group, self.val_group = group.clone(prefix="train/"), group.clone(prefix="val/")

    def note(self, hook):
        """Draw from every generator and write down what came."""
        if self.features.get("draws"):
            drawn = (torch.rand(()).item(), float(np.random.rand()), random.random())
            self.trainer.logger.entries.append((hook, drawn))

    def on_train_start(self):
        self.note("on_train_start")
        if self.features.get("metrics"):  # as people do because of the sanity check
            self.val_best.reset()
            self.val_accuracy.reset()
        if self.features.get("draws"):
            self.log("at_start", torch.rand(()))

    def on_train_epoch_start(self):
        self.note("on_train_epoch_start")

    def on_train_batch_start(self, batch, batch_idx):
        self.note("on_train_batch_start")
        return -1 if self.features.get("leaves_at") == batch_idx else None

    def on_after_batch_transfer(self, batch, dataloader_idx):
        if len(batch) == 2 and isinstance(next(iter(batch)), str | list | tuple):  # two loaders
            parts = batch.values() if isinstance(batch, dict) else batch
            batch = [torch.cat(both) for both in zip(*parts, strict=True)]
        x, y = batch
        return x + torch.randn_like(x) * self.features.get("noise", 0.0), y

    def loss(self, batch):
        x, y = batch
        output = self.layers(x)
        return torch.nn.functional.mse_loss(output, y), output

    def training_step(self, batch, batch_idx):
        loss, output = self.loss(batch)
        if self.features.get("manual"):
            self.step_by_hand(loss)
        self.log_training(loss, output.detach(), batch[1], batch_idx)
        if self.features.get("skips") and batch_idx == 2:
            return None
        return loss

    def step_by_hand(self, loss):
        for number, optimizer in enumerate(self.optimizers()):
            if number == 0 or self.trainer.fit_loop.total_batch_idx % 2:
                self.toggle_optimizer(optimizer)
                optimizer.zero_grad()
                self.manual_backward(loss, retain_graph=True)
                optimizer.step()
                self.untoggle_optimizer(optimizer)

    def log_training(self, loss, output, y, batch_idx):
        self.log("loss", loss)
        if self.features.get("means"):
            self.log("loss_mean", loss, on_step=True, on_epoch=True, prog_bar=True)
            self.log("loss_max", loss, on_epoch=True, on_step=False, reduce_fx="max")
            self.log("loss_min", loss, on_epoch=True, on_step=False, reduce_fx=min)
            self.log("loss_sum", loss, on_epoch=True, on_step=False, reduce_fx=torch.sum)
            self.log("all_ranks", loss, on_epoch=True, sync_dist=True)
            if batch_idx % 3 == 1:  # stale in between
                self.log("now_and_then", loss, on_step=True, on_epoch=True)
        if self.features.get("metrics"):
            guess, truth = torch.sigmoid(output[:, 0]), (y[:, 0] > 0).int()
            self.accuracy(guess, truth)
            self.log("accuracy", self.accuracy, on_step=True, on_epoch=True)
            self.group(guess, truth)
            self.log_dict(self.group, on_step=False, on_epoch=True)
            self.curve.update(guess, truth)
            self.low_high.update(guess, truth)
            self.recent.update(loss.detach())
            self.seen.update(len(y))

    def on_train_epoch_end(self):
        self.note("on_train_epoch_end")
        if self.features.get("metrics"):
            values = {"curve": self.curve.compute(), "seen": self.seen.compute()}
            values |= {f"recent_{k}": v for k, v in self.low_high.compute().items()}
            values["recent"] = self.recent.compute()
            self.log_dict({k: v.float() for k, v in values.items()})
            self.curve.reset()  # the others count on, over all epochs

    def on_validation_start(self):
        self.note("on_validation_start")

    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        loss, output = self.loss(batch)
        on_step = bool(self.features.get("means"))
        self.log("val_loss", loss, on_step=on_step, on_epoch=True)
        if self.features.get("val_noise"):
            self.log("val_noise", torch.rand(()) + batch[0].mean())
        if self.features.get("metrics"):
            guess, truth = torch.sigmoid(output[:, 0]), (batch[1][:, 0] > 0).int()
            self.val_accuracy(guess, truth)
            self.log("val_accuracy", self.val_accuracy)
            self.val_mean.update(loss)
            self.val_group.update(guess, truth)

    def on_validation_epoch_end(self):
        self.note("on_validation_epoch_end")
        if self.features.get("metrics") and not self.trainer.sanity_checking:
            self.val_best.update(self.val_mean.compute())
            self.val_mean.reset()
            self.log("val_best", self.val_best.compute())
            self.log_dict(self.val_group.compute())
            self.val_group.reset()

    def on_validation_end(self):
        self.note("on_validation_end")

    def configure_optimizers(self):
        kind = self.features.get("scheduler", "step")
        if self.features.get("manual"):
            first, last = self.layers[0].parameters(), self.layers[4].parameters()
            return [torch.optim.Adam(first, lr=0.05), torch.optim.SGD(last, 0.05, momentum=0.9)]
        optimizer = torch.optim.AdamW(self.parameters(), lr=0.05)
        schedulers = torch.optim.lr_scheduler
        if kind == "one cycle":
            scheduler = schedulers.OneCycleLR(optimizer, 0.1, total_steps=40)
            return [optimizer], [{"scheduler": scheduler, "interval": "step"}]
        if kind.startswith("plateau"):
            # The learning rate falls as soon as the loss does not fall by nine tenths.
            scheduler = schedulers.ReduceLROnPlateau(
                optimizer, patience=0, factor=0.8, threshold=0.9
            )
            interval, monitor = kind.split()[1:]
            config = {"scheduler": scheduler, "interval": interval, "monitor": monitor}
            return {"optimizer": optimizer, "lr_scheduler": config}
        return [optimizer], [schedulers.StepLR(optimizer, 1, 0.7)]


class NetWithBatchEnd(Net):
    """And the hook that comes after ModelCheckpoint has saved in the middle of an epoch."""

    def on_train_batch_end(self, outputs, batch, batch_idx):
        self.note("on_train_batch_end")
        if self.features.get("means"):
            self.log("at_batch_end", torch.as_tensor(float(batch_idx)), on_epoch=True)


class Augmented(Dataset):
    """Draws from all three generators for every sample."""

    def __init__(self, data):
        self.data = data

    def __len__(self):
        return len(self.data)

    def __getitem__(self, index):
        x, y = self.data[index]
        return x + torch.randn(3) + np.random.normal() + random.gauss(0, 1), y


class Walk(Sampler):
    """Goes through the data in an order of its own and knows where it is."""

    def __init__(self, samples, *, with_state=True):
        self.samples, self.epoch, self.next = samples, 0, 0
        if with_state:
            self.state_dict = lambda: {"epoch": self.epoch, "next": self.next}
            self.load_state_dict = self.__dict__.update

    def __len__(self):
        return self.samples

    def __iter__(self):
        order = torch.randperm(
            self.samples, generator=torch.Generator().manual_seed(self.epoch)
        ).tolist()
        while self.next < self.samples:
            self.next += 1
            yield order[self.next - 1]
        self.epoch, self.next = self.epoch + 1, 0


class DividedWalk(DistributedSampler):
    """A part of the data for each process, in an order of its own."""

    def __init__(self, data):
        super().__init__(data, RANKS, RANK)
        self.walk = Walk(SAMPLES // RANKS)
        self.state_dict, self.load_state_dict = self.walk.state_dict, self.walk.load_state_dict

    def __iter__(self):
        for index in self.walk:
            yield index * RANKS + RANK


class Drawing(Sampler):
    """Draws every index from the global generator, one by one, and has no state."""

    def __len__(self):
        return SAMPLES

    def __iter__(self):
        for _ in range(SAMPLES):
            yield int(torch.randint(SAMPLES, ()))


class Endless:
    """A batch sampler that does not say how many batches come."""

    def __init__(self, walk):
        self.walk = walk
        self.state_dict, self.load_state_dict = walk.state_dict, walk.load_state_dict

    def __iter__(self):
        return iter(BatchSampler(self.walk, BATCH, drop_last=False))


class Pairs:
    """A batch sampler with a generator of its own."""

    def __init__(self, samples):
        self.samples, self.generator = samples, torch.Generator().manual_seed(5)
        self.next = 0

    def __len__(self):
        return 5

    def __iter__(self):
        while self.next < 5:
            self.next += 1
            yield torch.randint(self.samples, (3,), generator=self.generator).tolist()
        self.next = 0

    def state_dict(self):
        return {"generator": self.generator.get_state(), "next": self.next}

    def load_state_dict(self, state):
        self.generator.set_state(state["generator"])
        self.next = state["next"]


class Stream(IterableDataset):
    """Reads on where it was, over and over."""

    def __init__(self, data, *, length=None, with_state=True):
        self.data, self.next, self.length = data, 0, length
        if with_state:
            self.state_dict = lambda: {"next": self.next}
            self.load_state_dict = self.__dict__.update
        if length is not None:
            self.__class__ = type("SizedStream", (Stream,), {"__len__": lambda own: own.length})

    def __iter__(self):
        if not hasattr(self, "state_dict"):
            self.next = 0
        length = self.length or 14
        end = (self.next // length + 1) * length
        while self.next < end:
            x, y = self.data[self.next % len(self.data)]
            self.next += 1
            yield x + torch.randn(3), y


class Chunks:
    """A loader that is no DataLoader and knows where it is, as torchdata's does."""

    def __init__(self, data):
        self.data, self.epoch, self.next = data, 0, 0

    def __len__(self):
        return 5

    def __iter__(self):
        while self.next < 5:
            self.next += 1
            start = (self.epoch + self.next * 3) % 14
            yield self.data[start : start + 4]
        self.epoch, self.next = self.epoch + 1, 0

    def state_dict(self):
        return {"epoch": self.epoch, "next": self.next}

    def load_state_dict(self, state):
        self.__dict__.update(state)


def tensors(samples, seed=7):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(samples, 3, generator=generator)
    return TensorDataset(x, torch.randn(samples, 1, generator=generator))


def data_of(kind, *, workers=0, persistent=False, augmented=False, world_size=1, **options):
    """Return what is trained and validated on."""
    data = tensors(SAMPLES)
    source = Augmented(data) if augmented else data
    workers = {"num_workers": workers, "persistent_workers": persistent}
    options = {"batch_size": BATCH, **workers, **options}
    batches = BatchSampler(Walk(SAMPLES), 4, False)
    made = {
        "plain": lambda: DataLoader(source, **options),
        "shuffled": lambda: DataLoader(source, shuffle=True, **options),
        "replacing": lambda: DataLoader(source, sampler=RandomSampler(data, True, 15), **options),
        "subset": lambda: DataLoader(source, sampler=SubsetRandomSampler(range(14)), **options),
        "weighted": lambda: DataLoader(
            source, sampler=WeightedRandomSampler([*range(1, SAMPLES + 1)], SAMPLES), **options
        ),
        "own generator": lambda: DataLoader(
            source,
            sampler=SubsetRandomSampler(range(SAMPLES), generator=torch.Generator()),
            **options,
        ),
        "distributed": lambda: DataLoader(
            source, sampler=DistributedSampler(data, 2, 0), **options
        ),
        "divided": lambda: DataLoader(source, sampler=DividedWalk(data), **options),
        "sampler": lambda: DataLoader(source, sampler=Walk(SAMPLES), **options),
        "endless sampler": lambda: DataLoader(source, batch_sampler=Endless(Walk(SAMPLES))),
        "batch sampler": lambda: DataLoader(source, batch_sampler=Pairs(SAMPLES), **workers),
        "a batch sampler of torch's": lambda: DataLoader(source, batch_sampler=batches, **workers),
        "stateless sampler": lambda: DataLoader(source, sampler=Drawing(), **options),
        "stream": lambda: DataLoader(Stream(data), BATCH),
        "sized stream": lambda: DataLoader(Stream(data, length=13), BATCH),
        "stateless stream": lambda: DataLoader(Stream(data, with_state=False), BATCH),
        "loader": lambda: Chunks(data),
        "several": lambda: {
            "long": DataLoader(source, shuffle=True, **options),
            "short": DataLoader(tensors(7, 3), shuffle=True, **options),
        },
        "the shorter of two": lambda: CombinedLoader(
            [DataLoader(source, **options), DataLoader(tensors(11, 3), shuffle=True, **options)],
            "min_size",
        ),
    }
    return made[kind]()


CASES: dict[str, dict[str, Any]] = {
    "in order": {"trainer": {"max_epochs": 3}},
    "shuffled": {"data": "shuffled"},
    "without the last batch": {"data": "shuffled", "loader": {"drop_last": True}},
    "dropout": {"data": "shuffled", "net": {"dropout": 0.5}},
    "augmentation and noise": {
        "data": "shuffled",
        "net": {"noise": 0.1},
        "loader": {"augmented": True},
    },
    "batch norm": {"data": "shuffled", "net": {"batch_norm": True}},
    "means": {"data": "shuffled", "net": {"means": True}, "trainer": {"max_epochs": 3}},
    "means of every third step": {
        "data": "shuffled",
        "net": {"means": True},
        "trainer": {"log_every_n_steps": 3},
    },
    "metrics": {"data": "shuffled", "net": {"metrics": True}},
    "random hooks": {"data": "shuffled", "net": {"draws": True, "val_noise": True}},
    "accumulation": {
        "data": "shuffled",
        "net": {"dropout": 0.5, "means": True},
        "trainer": {"accumulate_grad_batches": 2},
    },
    "accumulation by a schedule": {
        "data": "shuffled",
        "net": {"means": True},
        "callbacks": lambda: [GradientAccumulationScheduler({0: 1, 1: 3})],
        "trainer": {"max_epochs": 3},
    },
    "plateau by epochs": {
        "net": {"scheduler": "plateau epoch val_loss"},
        "trainer": {"max_epochs": 3},
    },
    "plateau by epochs of a mean of training": {
        "net": {"scheduler": "plateau epoch loss_mean", "means": True}
    },
    "plateau by steps": {
        "net": {"scheduler": "plateau step val_loss_epoch", "means": True},
        "trainer": {"val_check_interval": 1},
    },
    "one cycle and clipping": {
        "net": {"scheduler": "one cycle"},
        "trainer": {"gradient_clip_val": 0.1},
    },
    "early stopping": {
        "trainer": {"max_epochs": 9, "val_check_interval": 2},
        "callbacks": lambda: [EarlyStopping("val_loss", 0.5, patience=2)],
    },
    "early stopping that has to wait": {
        "net": {"means": True},
        "trainer": {
            "val_check_interval": 2,
            "min_epochs": 3,
            "max_epochs": 5,
            "log_every_n_steps": 2,
        },
        "callbacks": lambda: [EarlyStopping("val_loss", 0.9, patience=1)],
    },
    "validation by steps": {
        "net": {"means": True, "metrics": True},
        "trainer": {"val_check_interval": 2},
    },
    "validation by parts of an epoch": {
        "net": {"means": True, "draws": True},
        "trainer": {"val_check_interval": 0.5},
    },
    "validation over epochs": {
        "net": {"means": True},
        "trainer": {"val_check_interval": 3, "check_val_every_n_epoch": None},
    },
    "validation of every second epoch": {
        "net": {"metrics": True},
        "trainer": {"check_val_every_n_epoch": 2, "max_epochs": 4},
    },
    "several validation loaders": {"net": {"means": True, "metrics": True}, "validation": 2},
    "no validation": {"net": {"means": True}, "validation": 0},
    "limits of batches": {
        "data": "shuffled",
        "net": {"means": True},
        "trainer": {"limit_train_batches": 3, "limit_val_batches": 1},
    },
    "a limit of steps": {"net": {"means": True}, "trainer": {"max_epochs": -1, "max_steps": 8}},
    "optimization by hand": {"data": "shuffled", "net": {"manual": True, "means": True}},
    "double precision": {"net": {"means": True}, "trainer": {"precision": "64-true"}},
    "mixed precision": {"net": {"dropout": 0.5}, "trainer": {"precision": "bf16-mixed"}},
    "an epoch left early": {"data": "shuffled", "net": {"leaves_at": 3, "means": True}},
    "steps without a loss": {"data": "shuffled", "net": {"skips": True, "means": True}},
    "loaders made anew": {
        "data": "shuffled",
        "net": {"means": True},
        "trainer": {"reload_dataloaders_every_n_epochs": 2, "max_epochs": 4},
    },
    "samples with replacement": {"data": "replacing"},
    "a subset": {"data": "subset"},
    "weights": {"data": "weighted"},
    "a sampler's generator": {"data": "own generator"},
    "a part for one of two processes": {"data": "distributed"},
    "a sampler with a state": {"data": "sampler", "net": {"means": True}},
    "a batch sampler with a state": {"data": "batch sampler", "loader": {"augmented": True}},
    "a sampler in a batch sampler": {"data": "a batch sampler of torch's"},
    "a limited sampler with a state": {
        "data": "sampler",
        "trainer": {"limit_train_batches": 3, "max_epochs": 3},
    },
    "a sampler without a state": {"data": "stateless sampler", "says": "a sampler of its own"},
    "a stream": {"data": "stream", "net": {"means": True, "dropout": 0.5}},
    "a stream that knows its length": {
        "data": "sized stream",
        "net": {"means": True, "dropout": 0.5},
    },
    "a sampler without a length": {"data": "endless sampler", "net": {"dropout": 0.5}},
    "a limited stream": {"data": "stream", "trainer": {"limit_train_batches": 3, "max_epochs": 3}},
    "a stream without a state": {
        "data": "stateless stream",
        "net": {"dropout": 0.5},
        "says": "an IterableDataset",
    },
    "several loaders": {"data": "several", "loader": {"augmented": True}, "net": {"means": True}},
    "the shorter of two loaders": {"data": "the shorter of two"},
    "a loader with a state": {"data": "loader", "net": {"means": True}},
}
WORKERS: dict[str, dict[str, Any]] = {
    "workers": {
        "data": "shuffled",
        "net": {"dropout": 0.5, "draws": True},
        "loader": {"workers": 2, "augmented": True},
    },
    "persistent workers": {
        "data": "shuffled",
        "net": {"dropout": 0.5, "draws": True, "val_noise": True},
        "loader": {"workers": 2, "augmented": True, "persistent": True},
    },
    "workers and a sampler with a state": {
        "data": "sampler",
        "loader": {"workers": 2, "augmented": True},
    },
    "workers and a batch sampler with a state": {
        "data": "batch sampler",
        "loader": {"workers": 2, "persistent": True, "augmented": True},
    },
    "workers and a sampler without a state": {
        "data": "stateless sampler",
        "loader": {"workers": 2},
        "says": "a sampler of its own",
    },
}
RANKS_CASES: dict[str, dict[str, Any]] = {
    **{
        name: CASES[name]
        for name in (
            *("shuffled", "dropout", "augmentation and noise", "batch norm", "means", "metrics"),
            *("random hooks", "accumulation", "accumulation by a schedule", "plateau by steps"),
            *("plateau by epochs of a mean of training", "early stopping", "validation by steps"),
            *("several validation loaders", "limits of batches", "a limit of steps", "weights"),
            *("optimization by hand", "an epoch left early", "several loaders"),
        )
    },
    "a part for each process": {
        "data": "divided",
        "net": {"means": True},
        "loader": {"augmented": True},
    },
    "a stream for each process": {
        "data": "stream",
        "net": {"means": True},
        "loader": {"augmented": True},
    },
    "workers": WORKERS["workers"],
}


def fit(case, *, savers=(), resume=None, net_class=NetWithBatchEnd, **changes):
    """Train `case`, perhaps from a checkpoint; return what became of it, for comparing."""
    quiet()
    case = {"data": "plain", "validation": 1, **case, **changes}
    seed_everything(1, verbose=False)
    net, recorder = net_class(**case.get("net", {})), Recorder()
    train = data_of(case["data"], **case.get("loader", {}))
    options = case.get("loader", {})
    validation = [
        data_of(
            "plain",
            augmented=options.get("augmented", False),
            workers=options.get("workers", 0),
            persistent=options.get("persistent", False),
        )
        for _ in range(case["validation"])
    ]
    more = case.get("callbacks", list)()
    trainer = Trainer(
        **{
            "max_epochs": 2, "log_every_n_steps": 1, "accelerator": "cpu", "devices": RANKS,
            "enable_progress_bar": False, "enable_model_summary": False,
            "enable_checkpointing": any(isinstance(each, ModelCheckpoint) for each in savers),
            "num_sanity_val_steps": 1,
            **case.get("trainer", {}),
        },
        callbacks=[recorder, *more, *savers],
        logger=recorder,
    )  # fmt: skip
    data = {"train": train, **({"val": validation} if validation else {})}
    trainer.fit(net, exact_data(data, seed=3), ckpt_path=resume)
    return outcome(trainer, recorder)


def outcome(trainer, recorder):
    return {
        "step": trainer.global_step,
        "epoch": trainer.current_epoch,
        "weights": {k: v.clone() for k, v in trainer.lightning_module.state_dict().items()},
        "optimizers": [optimizer.state_dict() for optimizer in trainer.optimizers],
        "schedulers": [c.scheduler.state_dict() for c in trainer.lr_scheduler_configs],
        "metrics": {k: float(v) for k, v in trainer.callback_metrics.items()},
        "entries": recorder.entries,
    }


def same(one, other):
    """Compare bitwise whatever is nested in lists and dictionaries."""
    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and one.dtype == other.dtype and one.equal(other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[k], other[k]) for k in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other or (one != one and other != other)


def differences(whole, resumed, checkpoint):
    """Return what the resumed training did otherwise than the whole one did from there on."""
    content = torch.load(checkpoint, weights_only=True)
    is_repeated = content[KEY]["moment"] == "validation"
    begun = content["callbacks"]["Recorder"]["before_validation" if is_repeated else "entries"]
    expected = {**whole, "entries": whole["entries"][begun:]}
    found = {**resumed, "entries": [e for e in resumed["entries"] if e[0] != "on_train_start"]}
    expected["entries"] = [e for e in expected["entries"] if e[0] != "on_train_start"]
    return {
        name: (expected[name], found[name])
        for name in expected
        if not same(expected[name], found[name])
    }


def every_step(folder):
    """Return a callback that saves after each step into `folder`."""
    policy = CheckpointParams(every_n_steps=1, every_n_epochs=None, keep=0, at_error=False)
    return PeriodicCheckpoint(LocalStore(folder), policy)


class AtValidation(ModelCheckpoint):
    """Another class, for Lightning wants to know savers apart."""


def model_checkpoints(folder):
    """Return Lightning's own savers, which save wherever they can."""
    kept = {"save_top_k": -1, "dirpath": folder}
    return [
        ModelCheckpoint(filename="batch-{step}", every_n_train_steps=1, **kept),
        AtValidation(filename="validation-{epoch}-{step}", every_n_epochs=1,
                     save_on_train_epoch_end=False, **kept),
        ModelCheckpoint(filename="epoch-{epoch}", save_on_train_epoch_end=True, **kept),
        ModelCheckpoint(filename="time-{epoch}-{step}", train_time_interval=timedelta(0), **kept),
    ]  # fmt: skip


def quiet():
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    for text in (".*does not have many workers", ".*treespec", ".*number of training batches",
                 ".*exists and is not empty", ".*you have passed in a", ".*sync_dist=True",
                 ".*is known to have issues", ".*suggested max number of worker"):  # fmt: skip
        warnings.filterwarnings("ignore", text)


def main(folder, *names):
    """Train each case in this process and its neighbours, resume it everywhere, and compare."""
    warnings.simplefilter("ignore")
    failures = []
    for name in names:
        case = RANKS_CASES[name]
        steps, own = Path(folder) / name / "steps", Path(folder) / name / "own"
        whole = fit(case, savers=[every_step(steps)])
        files = sorted(steps.glob("*/model.ckpt"))[:-1:2]
        failures += compare(name, case, files, whole, NetWithBatchEnd)
        if name in ("metrics", "random hooks", "accumulation by a schedule"):
            whole = fit(case, savers=model_checkpoints(own), net_class=Net)
            files = sorted(own.glob("[b,e,v]*.ckpt"))[::2]
            failures += compare(name, case, files, whole, Net)
    print(*failures, sep="\n", flush=True)
    return len(failures)


def compare(name, case, files, whole, net_class):
    found = []
    for file in files:
        changes = differences(whole, fit(case, resume=file, net_class=net_class), file)
        if changes:
            found.append(f"{name} {file} rank {RANK}: {changes}"[:2000])
    return found


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
