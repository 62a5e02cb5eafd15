"""A LightningDataModule that describes its loaders instead of building them.

    class Digits(LeanDataModule):
        def setup(self, stage):
            self.arrays = np.load(self.dataset_path)

        def train_data(self):
            return Loader(dataset=TensorDataset(…), workers=2)

        def val_data(self):
            return TensorDataset(…)

The trainer sets order, batch size and place in the epoch, so that a training can be entered
anywhere; LeanTrainer, our trainer and Lightning's take it.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader, Dataset, IterableDataset

from .overrides import name_of
from .refusals import UnsupportedProject, check_class


@dataclass(frozen=True, kw_only=True)
class Loader:
    """How a data set is loaded.

    Attributes:
        dataset: Map-style, or an IterableDataset, which orders and divides itself.
        batch_size: Samples per batch of one process; None: the data module's.
        shuffle: Whether each epoch has another order; None: training data only.
        workers: Processes that load; None: the data module's.
        collate: Makes a batch of samples; None: torch's.
        drop_last: Whether an incomplete last batch is left out.
        pin_memory: Whether batches are put where a GPU takes them from fastest.
        persistent_workers: Whether the workers live on from epoch to epoch.
    """

    dataset: Dataset[Any]
    batch_size: int | None = None
    shuffle: bool | None = None
    workers: int | None = None
    collate: Callable[[list[Any]], Any] | None = None
    drop_last: bool = False
    pin_memory: bool = False
    persistent_workers: bool = False


Described = Dataset[Any] | Loader


class LeanDataModule(LightningDataModule):
    """See the module; define `train_data`, and `val_data` and `test_data` if there are any.

    Args:
        dataset_path: What the trainer's `--dataset_path` named.
        batch_size: Samples per batch of one process; our trainers say it.
        workers: Processes that load, for each of the trainer's.

    Raises:
        UnsupportedProject: A class defines what nobody calls; or, when one is made, it has no
            training data.
    """

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        check_class(cls, "datamodule")

    def __init__(
        self,
        dataset_path: str | os.PathLike[str] | None = None,
        batch_size: int = 32,
        workers: int = 0,
    ) -> None:
        super().__init__()
        cls = type(self)
        if (
            cls.train_data is LeanDataModule.train_data
            and cls.train_dataloader is LeanDataModule.train_dataloader
        ):
            raise UnsupportedProject(
                f"{name_of(cls)} has no training data. Define train_data(self), which returns "
                "a data set or a Loader."
            )
        self.dataset_path = dataset_path
        self.batch_size = batch_size
        self.workers = workers

    # What a subclass says; called after `setup`

    def train_data(self) -> Described:
        """Return the training data."""
        raise NotImplementedError("Define train_data(self).")

    def val_data(self) -> Described | Sequence[Described] | None:
        """Return the validation data, one or several; None: there are none."""
        return None

    def test_data(self) -> Described | Sequence[Described] | None:
        """Return the test data, one or several; None: there are none."""
        return None

    # What trainers call

    def train_dataloader(self) -> DataLoader[Any]:
        """Return a loader of the training data."""
        return self._built(self.train_data(), is_training=True)

    def val_dataloader(self) -> Any:
        """Return the loader of the validation data, or a list of them."""
        return self._several(self.val_data())

    def test_dataloader(self) -> Any:
        """Return the loader of the test data, or a list of them."""
        return self._several(self.test_data())

    def _several(self, described: Described | Sequence[Described] | None) -> Any:
        if described is None:
            return []
        if isinstance(described, list | tuple):
            return [self._built(each) for each in described]
        return self._built(described)  # type: ignore[arg-type]  # a Dataset may be a Sequence

    def _built(self, described: Described, *, is_training: bool = False) -> DataLoader[Any]:
        loader = described if isinstance(described, Loader) else Loader(dataset=described)
        shuffle = loader.shuffle
        if shuffle is None:
            shuffle = is_training and not isinstance(loader.dataset, IterableDataset)
        workers = self.workers if loader.workers is None else loader.workers
        return DataLoader(
            loader.dataset,
            batch_size=loader.batch_size or self.batch_size,
            shuffle=shuffle,
            num_workers=workers,
            collate_fn=loader.collate,
            drop_last=loader.drop_last,
            pin_memory=loader.pin_memory,
            persistent_workers=loader.persistent_workers and workers > 0,
        )
