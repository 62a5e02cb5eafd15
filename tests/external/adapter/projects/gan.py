"""A GAN: two optimizers, manual optimization, schedulers that the module steps itself."""

import torch
from lightning.pytorch import LightningModule
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.utils.data import DataLoader


class GAN(LightningModule):
    def __init__(self, latent=4):
        super().__init__()
        self.save_hyperparameters()
        self.automatic_optimization = False
        self.generator = nn.Sequential(nn.Linear(latent, 16), nn.LeakyReLU(0.2), nn.Linear(16, 2))
        self.discriminator = nn.Sequential(nn.Linear(2, 16), nn.LeakyReLU(0.2), nn.Linear(16, 1))
        self.register_buffer("seeds", torch.randn(8, latent))

    def forward(self, latent):
        return self.generator(latent)

    def adversarial_loss(self, scores, is_real):
        return binary_cross_entropy_with_logits(scores, torch.full_like(scores, float(is_real)))

    def training_step(self, batch):
        of_generator, of_discriminator = self.optimizers()
        latent = torch.randn(len(batch), self.hparams.latent, device=self.device)

        self.toggle_optimizer(of_generator)
        loss = self.adversarial_loss(self.discriminator(self(latent)), True)
        self.log("g_loss", loss, prog_bar=True)
        self.manual_backward(loss)
        of_generator.step()
        of_generator.zero_grad()
        self.untoggle_optimizer(of_generator)

        with self.toggled_optimizer(of_discriminator):
            real = self.adversarial_loss(self.discriminator(batch), True)
            fake = self.adversarial_loss(self.discriminator(self(latent).detach()), False)
            loss = (real + fake) / 2
            self.log("d_loss", loss, prog_bar=True, on_epoch=True)
            self.manual_backward(loss)
            self.clip_gradients(
                of_discriminator, gradient_clip_val=0.5, gradient_clip_algorithm="norm"
            )
            of_discriminator.step()
            of_discriminator.zero_grad()

    def validation_step(self, batch, batch_idx):
        self.log("val_real", self.discriminator(batch).mean())

    def on_validation_epoch_end(self):
        self.log("val_spread", self(self.seeds).std())

    def on_train_epoch_end(self):
        for scheduler in self.lr_schedulers():
            scheduler.step()

    def configure_optimizers(self):
        made = [
            torch.optim.Adam(each.parameters(), lr=0.01, betas=(0.5, 0.999))
            for each in (self.generator, self.discriminator)
        ]
        return made, [torch.optim.lr_scheduler.ExponentialLR(each, 0.9) for each in made]


OPTIONS = {"max_epochs": 3}


def make():
    generator = torch.Generator().manual_seed(5)
    data = torch.randn(40, 2, generator=generator) * torch.tensor([2.0, 0.5])
    return GAN(), (DataLoader(data, 8, shuffle=True), DataLoader(data[:12], 8))
