"""The loaders of a lean fit: on our order of samples, entered where the training stands.

The same as the Lightning engine's: `train_loader` and `evaluation_loaders` make them.
"""

import math
from collections.abc import Callable
from typing import Any

from lightning.pytorch.utilities.combined_loader import CombinedLoader

from ..exact.evaluation_loaders import evaluation_loaders
from ..exact.exact_resume import ExactResume
from ..exact.randomness import derive_seed, seeded_apart
from ..exact.train_loader import train_loader
from ..refused import Refused
from .batches import SEQUENTIAL, Batches, is_sequential
from .stand_in import StandIn

Made = Callable[[], Any]
"""Returns a user's loaders, as his hook does."""


class FitData:
    """The loaders of one fit.

    Args:
        train: Returns the user's training data.
        validation: Returns the user's validation data; None: there is none.
        trainer: Says where the fit stands, which processes there are, and gets to know them.
        exact: Has what the checkpoint says of the order of samples.
        batch_size: Samples per batch over all processes; None takes each loader's own.
        seed: Of the order of samples, and of what loaders draw.
    """

    def __init__(
        self,
        train: Made,
        validation: Made | None,
        *,
        trainer: StandIn,
        exact: ExactResume,
        batch_size: int | None,
        seed: int,
    ) -> None:
        self._train, self._validation = train, validation
        self._trainer: Any = trainer
        self._exact = exact
        self._batch_size, self._seed = batch_size, seed
        self.has_validation = validation is not None
        self.unit = 1  # batches of this process that count as one, see `world`
        self.train: Batches | None = None
        self.validation: list[Batches] | None = None
        self.made_at = [0.0, float("-inf")]  # the epochs in which the two were made

    def renew_train(self) -> None:
        """Make the training loader anew, if it is to be before this epoch."""
        every, epoch = self._trainer.reload_dataloaders_every_n_epochs, self._epoch
        if every and self.train is not None and epoch - self.made_at[0] >= every:
            self.train.close()
            self.train = None
        self.set_up_train()

    def set_up_train(self) -> Batches:
        """Make the training loader, if it is not made yet."""
        if self.train is None:
            trainer = self._trainer
            self.made_at[0] = self._epoch_of_loaders
            loader = train_loader(
                _at_once(self._made(self._train)),
                trainer,
                self._exact,
                batch_size=self._batch_size,
                seed=self._seed,
            )
            trainer.train_dataloader = loader
            self.train = Batches(loader, trainer.limit_train_batches)
            sized = self.train.is_sized
            trainer.num_training_batches = self.train.length if sized else math.inf
            trainer.val_check_batch = check_after(trainer, trainer.num_training_batches)
        return self.train

    def set_up_validation(self) -> list[Batches]:
        """Make the validation loaders, if they are not made yet; none if there are none to run."""
        every, epoch = self._trainer.reload_dataloaders_every_n_epochs, self._epoch
        if self.validation is None or (every and epoch - self.made_at[1] >= every):
            trainer = self._trainer
            self.made_at[1] = epoch
            trainer.logged.validation_batches = {}
            self.validation = []
            if self._validation is None or trainer.limit_val_batches == 0:
                return self.validation
            made = self._evaluation_loaders(self._made(self._validation))
            trainer.val_dataloaders = made
            is_combined = isinstance(made, CombinedLoader)
            if is_combined and made._mode != "sequential":
                loaders = [made]
            else:
                loaders = (made if is_combined else CombinedLoader(made, "sequential")).flattened
            self.validation = [Batches(each, trainer.limit_val_batches) for each in loaders]
            trainer.num_val_batches = [each.length for each in self.validation]
            steps = trainer.num_sanity_val_steps
            trainer.num_sanity_val_batches = [min(steps, each.length) for each in self.validation]
        return self.validation

    def _evaluation_loaders(self, made: Any) -> Any:
        return evaluation_loaders(
            made,
            self._trainer,
            batch_size=self._batch_size,
            seed=self._seed,
            role="val_dataloader",
        )

    def _made(self, own: Made) -> Any:
        with seeded_apart(derive_seed(self._seed, "loaders", self._epoch_of_loaders)):
            return own()

    @property
    def _epoch(self) -> int:
        return int(self._trainer.current_epoch)

    @property
    def _epoch_of_loaders(self) -> int:
        """The epoch in which loaders of now are made, whether or not the fit was resumed since."""
        every = self._trainer.reload_dataloaders_every_n_epochs
        return self._epoch - self._epoch % every if every else 0

    def close(self) -> None:
        """Let go of all iterators."""
        for each in [*([self.train] if self.train else []), *(self.validation or [])]:
            each.close()


def _at_once(loader: Any) -> Any:
    """Return training data whose loaders, if they are several, are all read for each batch.

    Raises:
        Refused: They come one after the other.
    """
    if is_sequential(loader):
        raise Refused(SEQUENTIAL)
    return loader


def check_after(trainer: Any, batches: float) -> float | None:
    """Return after how many of an epoch's batches a validation runs; infinite: at the epoch's end.

    None: the clock says when.

    Raises:
        ValueError: It never would.
        Refused: A share of an unknown number of batches.
    """
    interval = trainer.val_check_interval
    if interval is None:
        return None
    if isinstance(interval, int):
        per_epoch = trainer.check_val_every_n_epoch is not None
        if interval > batches and per_epoch and trainer.limit_val_batches > 0:
            raise ValueError(
                f"val_check_interval is {interval}, but an epoch has {batches} batches: it would "
                "never be reached. Give fewer, or check_val_every_n_epoch=None to count over "
                "epochs."
            )
        return interval
    if math.isinf(batches):
        if interval == 1.0:
            return math.inf
        raise Refused(
            f"val_check_interval is {interval}, a share of a loader whose length is not known. "
            "Give a whole number of batches."
        )
    return max(1, int(batches * interval))
