"""A denoising autoencoder of modules in modules, with accumulation and a plateau."""

import torch
from lightning.pytorch import LightningModule
from torch import nn
from torch.utils.data import DataLoader


class Encoder(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(12, width), nn.GELU(), nn.Linear(width, 3))

    def forward(self, x):
        return self.layers(x)


class Decoder(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(3, width), nn.GELU(), nn.Linear(width, 12))

    def forward(self, code):
        return self.layers(code)


class AutoEncoder(LightningModule):
    """Has its loaders itself, as Lightning's first example."""

    def __init__(self, width=8):
        super().__init__()
        self.save_hyperparameters()
        self.encoder, self.decoder = Encoder(width), Decoder(width)
        self.example_input_array = torch.zeros(1, 12)

    def forward(self, x):
        return self.encoder(x)

    def _loss(self, clean, noise):
        return nn.functional.mse_loss(self.decoder(self.encoder(clean + noise)), clean)

    def training_step(self, batch, batch_idx):
        loss = self._loss(batch, 0.3 * torch.randn_like(batch))
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", self._loss(batch, 0.0), on_epoch=True, prog_bar=True)

    def on_train_epoch_end(self):
        self.log("size", sum(each.detach().norm() for each in self.parameters()))

    def on_before_optimizer_step(self, optimizer):
        norms = [each.grad.norm() for each in self.parameters() if each.grad is not None]
        self.log("grad_norm", torch.stack(norms).norm())

    def configure_optimizers(self):
        optimizer = torch.optim.Adam(self.parameters(), lr=0.05)
        plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.1, patience=0)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": plateau, "monitor": "val_loss", "frequency": 1},
        }

    def train_dataloader(self):
        data = torch.randn(50, 12, generator=torch.Generator().manual_seed(3))
        return DataLoader(data, 6, shuffle=True)

    def val_dataloader(self):
        return DataLoader(torch.randn(20, 12, generator=torch.Generator().manual_seed(4)), 6)


OPTIONS = {"max_epochs": 3, "accumulate_grad_batches": 2, "val_check_interval": 0.5}


def make():
    return AutoEncoder(), None
