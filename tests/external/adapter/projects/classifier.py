"""A classifier of images: convolutions, BatchNorm, dropout, one cycle of the learning rate."""

import torch
from lightning.pytorch import LightningDataModule, LightningModule
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset, random_split


class Images(LightningDataModule):
    def __init__(self, batch_size=8):
        super().__init__()
        self.save_hyperparameters()

    def prepare_data(self):
        self.prepared = True

    def setup(self, stage):
        generator = torch.Generator().manual_seed(7)
        images = torch.randn(60, 1, 8, 8, generator=generator)
        labels = (images.mean((1, 2, 3)) > 0).long()
        data = TensorDataset(images, labels)
        self.train, self.val = random_split(data, [44, 16], generator=generator)

    def train_dataloader(self):
        return DataLoader(self.train, self.hparams.batch_size, shuffle=True, drop_last=True)

    def val_dataloader(self):
        return DataLoader(self.val, self.hparams.batch_size)

    def on_after_batch_transfer(self, batch, dataloader_idx):
        images, labels = batch
        if self.trainer.training:  # augmentation
            images = images + 0.1 * torch.randn_like(images)
        return images, labels


class Classifier(LightningModule):
    def __init__(self, width=4, learning_rate=0.01):
        super().__init__()
        self.save_hyperparameters()
        self.layers = nn.Sequential(
            nn.Conv2d(1, width, 3, padding=1),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.MaxPool2d(4),
            nn.Flatten(),
            nn.Dropout(0.2),
            nn.Linear(4 * width, 2),
        )

    def forward(self, images):
        return self.layers(images)

    def training_step(self, batch, batch_idx):
        images, labels = batch
        scores = self(images)
        loss = cross_entropy(scores, labels)
        self.log("train/loss", loss, prog_bar=True, on_step=True, on_epoch=True)
        self.log("lr", self.lr_schedulers().get_last_lr()[0])
        return {"loss": loss, "right": (scores.argmax(1) == labels).sum()}

    def on_train_batch_end(self, outputs, batch, batch_idx):
        self.log("train/right", outputs["right"].float(), reduce_fx="sum", on_epoch=True)

    def validation_step(self, batch, batch_idx):
        images, labels = batch
        scores = self(images)
        self.log_dict(
            {
                "val/loss": cross_entropy(scores, labels),
                "val/acc": (scores.argmax(1) == labels).float().mean(),
            },
            prog_bar=True,
        )

    def test_step(self, batch, batch_idx):
        self.validation_step(batch, batch_idx)

    def configure_optimizers(self):
        optimizer = torch.optim.AdamW(self.parameters(), lr=self.hparams.learning_rate)
        scheduler = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, max_lr=0.1, total_steps=self.trainer.estimated_stepping_batches
        )
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }


OPTIONS = {"max_epochs": 3, "gradient_clip_val": 0.5}


def make():
    return Classifier(), Images()
