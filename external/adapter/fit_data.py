"""The loaders of a lean fit: on our order of samples, entered where the training stands.

The same as the Lightning engine's: `train_loader` and `evaluation_loaders` make them.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any

from lightning.fabric.utilities.data import sized_len
from lightning.pytorch.utilities.combined_loader import CombinedLoader

from ..exact.evaluation_loaders import evaluation_loaders
from ..exact.exact_resume import ExactResume
from ..exact.randomness import derive_seed, seeded_apart
from ..exact.train_loader import train_loader
from ..refused import Refused
from .stand_in import StandIn

Made = Callable[[], Any]
"""Returns a user's loaders, as his hook does."""


class Batches:
    """The batches of one loader, and whether the one that was given is the last.

    Of a loader that does not tell its length one batch is taken ahead, as Lightning does.

    Args:
        loader: Iterated over anew by `begin`.
        limit: So many batches at most; a share of them where it is a float.
        unit: Batches of the loader that the limit counts as one.
    """

    def __init__(self, loader: Any, limit: float, *, unit: int = 1) -> None:
        if isinstance(loader, list | tuple | dict) and loader:  # an empty one has no batches
            loader = CombinedLoader(loader, "max_size_cycle")  # as Lightning does
        self.loader = loader
        self.is_combined = isinstance(loader, CombinedLoader)
        length = self._length_of_several() if self.is_combined else sized_len(loader)
        self.length = _limited(None if length is None else length // unit, limit) * unit
        self.limit = limit if isinstance(limit, int) else None
        self.is_sized = length is not None
        self.is_over = False
        self.taken = 0
        self._iterator: Iterator[Any] = iter(())
        self._ahead: list[Any] = []

    def _length_of_several(self) -> int | None:
        self.loader.limits = None
        iter(self.loader)
        return sized_len(self.loader)

    def begin(self, done: int) -> None:
        """Begin an iteration whose first `done` batches the loader leaves out by itself."""
        self._iterator = iter(self.loader)
        self.taken, self._ahead = done, []
        self.is_over = self.taken >= self.length
        if not self.is_sized and not self.is_over:
            self._look_ahead()

    def next(self) -> Any:
        """Return the next batch.

        Raises:
            StopIteration: There is none.
        """
        if self.is_over:
            raise StopIteration
        if self.is_sized:
            batch = self._load()
            self.taken += 1
            self.is_over = self.taken >= self.length
            return batch
        batch = self._ahead.pop()
        self.taken += 1
        if self.limit is not None and self.taken >= self.limit:
            self.is_over = True
        else:
            self._look_ahead()
        return batch

    def _look_ahead(self) -> None:
        try:
            self._ahead.append(self._load())
        except StopIteration:
            self.is_over = True

    def _load(self) -> Any:
        batch = next(self._iterator)
        return batch[0] if self.is_combined else batch  # it adds the batch's and loader's numbers

    def close(self) -> None:
        """Let go of the iterator, whose workers end unless they are persistent."""
        self._iterator, self._ahead = iter(()), []


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
                self._made(self._train),
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


def _limited(length: int | None, limit: float) -> float:
    """Return how many batches there are; infinite if nobody knows.

    Raises:
        Refused: A share of an unknown length, or a share that is less than a batch.
    """
    if length is None:
        if isinstance(limit, float) and limit not in (0.0, 1.0):
            raise Refused(
                f"A share of {limit} of a loader whose length is not known cannot be taken. Limit "
                "it by a whole number of batches."
            )
        return limit if isinstance(limit, int) else math.inf
    if isinstance(limit, int):
        return min(length, limit)
    share = length if limit == 1.0 else int(length * limit)
    if share == 0 and limit > 0 and length > 0:
        raise Refused(
            f"A share of {limit} of {length} batches is less than one batch. Use at least "
            f"{1 / length:.3g}."
        )
    return share


def check_after(trainer: Any, batches: float) -> float:
    """Return after how many of an epoch's batches a validation runs; infinite: at the epoch's end.

    Raises:
        ValueError: It never would.
        Refused: A share of an unknown number of batches.
    """
    interval = trainer.val_check_interval
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
