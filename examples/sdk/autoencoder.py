"""Compress scikit-learn's digits to eight numbers and back, with Lightning's own Trainer.

    python autoencoder.py

One callback reports, uploads what ModelCheckpoint saves, and saves in an emergency.
"""

import argparse
import os
from pathlib import Path

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from sklearn.datasets import load_digits
from torch.utils.data import DataLoader, TensorDataset

from curitorch.external.sdk import LightningCallback


class Autoencoder(LightningModule):
    """64 pixels to `width` numbers and back."""

    def __init__(self, width=8):
        super().__init__()
        self.save_hyperparameters()
        self.encoder = torch.nn.Sequential(
            torch.nn.Linear(64, 32), torch.nn.ReLU(), torch.nn.Linear(32, width)
        )
        self.decoder = torch.nn.Sequential(
            torch.nn.Linear(width, 32), torch.nn.ReLU(), torch.nn.Linear(32, 64)
        )

    def training_step(self, batch, batch_idx):
        """Return how far the image that comes back is from the one that went in."""
        (images,) = batch
        loss = torch.nn.functional.mse_loss(self.decoder(self.encoder(images)), images)
        self.log("train/loss", loss)
        return loss

    def configure_optimizers(self):
        """Return the optimizer."""
        return torch.optim.Adam(self.parameters(), lr=0.005)


def main():
    """Train, from the newest checkpoint in the directory if there is one."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--save_dir", default=os.environ.get("CKPT_DIR", "saves"))
    args = parser.parse_args()

    torch.manual_seed(0)
    images = torch.tensor(load_digits().data / 16).float()
    trainer = Trainer(
        max_epochs=args.epochs,
        accelerator="cpu",
        devices=int(os.environ.get("LOCAL_WORLD_SIZE", 1)),
        default_root_dir=args.save_dir,
        log_every_n_steps=5,
        enable_progress_bar=False,
        logger=False,
        callbacks=[
            LightningCallback(),
            ModelCheckpoint(args.save_dir, every_n_epochs=2, save_top_k=-1),
        ],
    )
    saved = sorted(Path(args.save_dir).glob("*.ckpt"), key=os.path.getmtime)
    loader = DataLoader(TensorDataset(images), 64, shuffle=True)
    trainer.fit(Autoencoder(), loader, ckpt_path=saved[-1] if saved else None)
    if trainer.is_global_zero:
        print(f"loss {trainer.callback_metrics['train/loss']:.4f}")


if __name__ == "__main__":
    main()
