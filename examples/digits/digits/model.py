"""The model: a small convolutional network."""

import torch
from lightning.pytorch import LightningModule
from torch import nn
from torch.nn.functional import cross_entropy


class DigitsClassifier(LightningModule):
    """Classifies 8 x 8 images of handwritten digits.

    Args:
        channels: Width of the first layer; the second one is twice as wide.
        dropout: Share of the features that training leaves out.
        learning_rate: Of Adam.
    """

    def __init__(self, channels=16, dropout=0.1, learning_rate=3e-3):
        super().__init__()
        self.save_hyperparameters()
        self.layers = nn.Sequential(
            nn.Conv2d(1, channels, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),  # (batch, channels, 4, 4)
            nn.Conv2d(channels, 2 * channels, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),  # (batch, 2 * channels, 2, 2)
            nn.Flatten(),
            nn.Dropout(dropout),
            nn.Linear(8 * channels, 10),
        )

    def forward(self, images):
        """Return the scores (batch, 10) of images (batch, 8, 8) between 0 and 1."""
        return self.layers(images.unsqueeze(1))

    def training_step(self, batch, batch_idx):
        """Return the loss of one batch."""
        loss, accuracy = self._measure(batch)
        self.log_dict({"train_loss": loss, "train_acc": accuracy})
        return loss

    def validation_step(self, batch, batch_idx):
        """Log loss and accuracy on the validation images."""
        loss, accuracy = self._measure(batch)
        self.log_dict({"val/loss": loss, "val/acc": accuracy}, sync_dist=True)

    def test_step(self, batch, batch_idx):
        """Log loss and accuracy on the test images."""
        loss, accuracy = self._measure(batch)
        self.log_dict({"test/loss": loss, "test/acc": accuracy}, sync_dist=True)

    def configure_optimizers(self):
        """Return the optimizer."""
        return torch.optim.Adam(self.parameters(), lr=self.hparams.learning_rate)

    def _measure(self, batch):
        images, labels = batch
        scores = self(images)
        return cross_entropy(scores, labels), (scores.argmax(1) == labels).float().mean()
