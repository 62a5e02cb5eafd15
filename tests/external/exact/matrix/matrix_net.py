"""A module with every feature that a case of the matrix may switch on."""

import random

import numpy as np
import torch
from lightning.pytorch import LightningModule
from torchmetrics import MaxMetric, MeanMetric, MetricCollection, SumMetric
from torchmetrics.classification import (
    BinaryAccuracy,
    BinaryAUROC,
    BinaryF1Score,
    BinaryPrecision,
    BinaryRecall,
)
from torchmetrics.wrappers import MinMaxMetric, Running


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
