"""The data: what `make_dataset` wrote, as loaders."""

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader, TensorDataset


class DigitsData(LightningDataModule):
    """The images and labels of an .npz file.

    Args:
        dataset_path: The file; the trainer passes its `--dataset_path`.
        batch_size: Images per batch; the trainer passes one process's part of the global batch.
    """

    def __init__(self, dataset_path, batch_size=64):
        super().__init__()
        self.dataset_path = dataset_path
        self.batch_size = batch_size

    def setup(self, stage):
        """Read the file."""
        with np.load(self.dataset_path) as arrays:
            self.parts = {
                part: TensorDataset(
                    torch.from_numpy(arrays[f"{part}_images"]),
                    torch.from_numpy(arrays[f"{part}_labels"]),
                )
                for part in ("train", "val", "test")
            }

    def train_dataloader(self):
        """Return the training images, in an order of their own each epoch."""
        return DataLoader(self.parts["train"], self.batch_size, shuffle=True)

    def val_dataloader(self):
        """Return the validation images."""
        return DataLoader(self.parts["val"], self.batch_size)

    def test_dataloader(self):
        """Return the test images."""
        return DataLoader(self.parts["test"], self.batch_size)
