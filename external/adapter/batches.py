"""The batches of one loader, up to a limit, and whether the one that was given is the last."""

import math
import warnings
from collections.abc import Iterator
from typing import Any

from lightning.fabric.utilities.data import sized_len
from lightning.pytorch.utilities.combined_loader import CombinedLoader

from ..refused import Refused

SEQUENTIAL = (
    "CombinedLoader(…, mode='sequential') gives one loader's batches after the other's, which no "
    "training has, Lightning's neither. Use max_size_cycle, max_size or min_size, or one loader "
    "over a ConcatDataset."
)


def is_sequential(loader: Any) -> bool:
    """Return whether several loaders come one after the other, see `SEQUENTIAL`."""
    return isinstance(loader, CombinedLoader) and loader._mode == "sequential"


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


def leave_out_empty(world_size: int, *, is_for_any_world: bool) -> None:
    """Say that a loader gave None instead of a batch, which nothing is trained on, as in Lightning.

    Raises:
        Refused: Other processes have one, and would wait for this one's gradients.
    """
    if world_size > 1 or is_for_any_world:
        raise Refused(
            "The training loader gave None instead of a batch, which several processes cannot "
            "leave out together. Let its collate_fn return a batch, of one sample perhaps."
        )
    warnings.warn(
        "The training loader gave None instead of a batch: nothing is trained on it.", stacklevel=2
    )
