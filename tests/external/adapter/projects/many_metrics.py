"""Everything that torchmetrics offers: objects logged, collections, clones, two validations."""

import torch
import torchmetrics
from lightning.pytorch import LightningModule
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics.classification import (
    MulticlassAccuracy,
    MulticlassConfusionMatrix,
    MulticlassF1Score,
)

CLASSES = 3


class Measured(LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, CLASSES))
        metrics = torchmetrics.MetricCollection(
            {
                "acc": MulticlassAccuracy(CLASSES, average="micro"),
                "f1": MulticlassF1Score(CLASSES, average="macro"),
            }
        )
        self.train_metrics = metrics.clone(prefix="train/")
        self.val_metrics = nn.ModuleList(metrics.clone(prefix=f"val{i}/") for i in range(2))
        self.top2 = MulticlassAccuracy(CLASSES, top_k=2, average="micro")
        self.mean_loss = torchmetrics.MeanMetric()
        self.largest = torchmetrics.MaxMetric()
        self.confusion = MulticlassConfusionMatrix(CLASSES)
        self.by_name = nn.ModuleDict({"aux": torchmetrics.MeanAbsoluteError()})

    def training_step(self, batch, batch_idx):
        x, y = batch
        scores = self.layer(x)
        loss = nn.functional.cross_entropy(scores, y)
        self.train_metrics(scores, y)
        self.log_dict(self.train_metrics, on_step=True, on_epoch=True)
        self.top2(scores, y)
        self.log("train_top2", self.top2)
        self.mean_loss.update(loss.detach(), weight=len(y))
        self.log("mean_loss", self.mean_loss, on_step=False, on_epoch=True)
        self.log("least", loss, on_step=False, on_epoch=True, reduce_fx="min")
        self.largest.update(loss.detach())
        return loss

    def on_train_epoch_end(self):
        self.log("largest", self.largest.compute())
        self.largest.reset()

    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        x, y = batch
        scores = self.layer(x)
        metrics = self.val_metrics[dataloader_idx]
        metrics.update(scores, y)
        self.log_dict(metrics, add_dataloader_idx=False)
        self.log("val_loss", nn.functional.cross_entropy(scores, y))  # per loader
        self.by_name["aux"].update(scores.softmax(1)[:, 0], (y == 0).float())
        if dataloader_idx == 0:
            self.confusion.update(scores, y)

    def on_validation_epoch_end(self):
        counts = self.confusion.compute()
        self.log("diagonal", counts.diagonal().sum().float())
        self.confusion.reset()
        self.log("aux", self.by_name["aux"], metric_attribute="by_name.aux")

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.2, momentum=0.9)


OPTIONS = {"max_epochs": 2, "val_check_interval": 3, "limit_train_batches": 7}


def make():
    def loader(count, seed, **options):
        x = torch.randn(count, 4, generator=torch.Generator().manual_seed(seed))
        return DataLoader(TensorDataset(x, x[:, :CLASSES].argmax(1)), 6, **options)

    return Measured(), (loader(50, 1, shuffle=True), [loader(20, 2), loader(9, 3)])
