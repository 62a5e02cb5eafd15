"""A moment of a Lightning Trainer's loops that a resume goes back to: its generators and loaders.

What is taken at every batch is a few numbers; the order of the loaders is asked for at a save.
"""

from dataclasses import dataclass, field
from typing import Any

from lightning.pytorch import Trainer

from . import generators, loader_iterators


@dataclass(frozen=True)
class LightningBoundary:
    """One of them.

    Attributes:
        batch: The number of the epoch's next batch, 0 and up; None: no iterator of it is made yet.
        fetched: So many batches, 0 or 1, are fetched and not trained on yet.
        rng: The generators.
        ahead: So many batches more were fetched by Lightning, to know which is the last.
        index: Of the next batch to be fetched.
        consumed: Which of several loaders have ended.
        noted: Of each loader's iterator, how many batches it gave, and its last fetches.
    """

    batch: int | None
    fetched: int
    rng: dict[str, Any] = field(repr=False)
    ahead: int = 0
    index: int = 0
    consumed: tuple[bool, ...] = ()
    noted: tuple[dict[str, Any] | None, ...] = ()

    @classmethod
    def here(cls, trainer: Trainer, batch: int | None, fetched: int) -> "LightningBoundary":
        """Return the one that `trainer` stands at."""
        rng, fetcher = generators.take(), trainer.fit_loop._data_fetcher
        if batch is None or fetcher is None:
            return cls(batch, fetched, rng)
        iterator = _iterator_of(fetcher)
        return cls(
            batch,
            fetched,
            rng,
            ahead=len(getattr(fetcher, "batches", [])),
            index=iterator._idx,
            consumed=tuple(getattr(iterator, "_consumed", ())),
            noted=tuple(
                loader_iterators.noted(each) if loader_iterators.is_one(each) else None
                for each in iterator.iterators
            ),
        )

    def described(self, trainer: Trainer) -> dict[str, Any]:
        """Return it as plain data; `trainer` may have gone on, in the same epoch."""
        loaders: list[dict[str, Any] | None] = []
        if self.noted:
            now = _iterator_of(trainer.fit_loop._data_fetcher).iterators
            loaders = [
                None if then is None else loader_iterators.describe(each) | then
                for each, then in zip(now, self.noted, strict=True)
            ]
        return {
            "rng": self.rng,
            "loaders": loaders,
            "consumed": list(self.consumed),
            "index": self.index,
            "fetched": self.fetched,
            "ahead": self.ahead,
        }


def _iterator_of(fetcher: Any) -> Any:
    assert fetcher.combined_loader._iterator is not None
    return fetcher.combined_loader._iterator
