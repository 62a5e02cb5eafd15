"""Data that is no LightningDataModule, as one: a user's loaders, and those that a model defines."""

from typing import Any, cast

from lightning.pytorch import LightningDataModule, LightningModule
from torch.utils.data import DataLoader

from .refused import Refused

EVALUATION_LOADERS = ("val_dataloader", "test_dataloader", "predict_dataloader")


class LoaderData(LightningDataModule):
    """A data module around what a user's function returned.

    Args:
        loaders: A train loader, or a tuple (train, validation), or a mapping with the keys
            `train`, `val`, `test`.

    Raises:
        Refused: `loaders` is none of these.
    """

    def __init__(self, loaders: object) -> None:
        super().__init__()
        if isinstance(loaders, tuple | list) and 1 <= len(loaders) <= 3:
            loaders = dict(zip(("train", "val", "test"), loaders, strict=False))
        elif isinstance(loaders, DataLoader):
            loaders = {"train": loaders}
        if not isinstance(loaders, dict) or "train" not in loaders:
            raise Refused(
                f"The data function returned a {type(loaders).__name__}. Expected a DataLoader, "
                "a tuple (train, validation[, test]), or a dict with 'train' and 'val'."
            )
        self._loaders = cast(dict[str, Any], loaders)
        # Lightning asks for a loader when its method is overridden: define what there is.
        if "val" in loaders:
            self.val_dataloader = lambda: self._loaders["val"]  # type: ignore[method-assign]
        if "test" in loaders:
            self.test_dataloader = lambda: self._loaders["test"]  # type: ignore[method-assign]

    def train_dataloader(self) -> Any:
        """Return the train loader."""
        return self._loaders["train"]


class ModelData(LightningDataModule):
    """The loaders that a model defines itself, as a data module.

    Raises:
        Refused: The model defines no `train_dataloader`.
    """

    def __init__(self, model: LightningModule) -> None:
        super().__init__()
        for name in ("train_dataloader", *EVALUATION_LOADERS):
            if getattr(type(model), name) is not getattr(LightningModule, name):
                setattr(self, name, getattr(model, name))
        if "train_dataloader" not in vars(self):
            raise Refused(
                f"There is no data, and {type(model).__qualname__} has no train_dataloader. "
                "Give --data package.module:Name, or define the loaders in the model."
            )
