"""A user's loader of any kind, entered in the middle of an epoch.

Where the loader, or the stream that it reads in this process, has `state_dict` and
`load_state_dict`, its state is kept after every batch: it goes on there. Otherwise its first
batches are loaded again and left out, which is exact if it gives the same ones again.
"""

from collections.abc import Iterable, Iterator
from typing import Any

from .own_order import Bookmarks, tell_epoch
from .patient_workers import patient_workers
from .randomness import derive_seed, derive_seeds, seed_generators
from .sampling import Position

_NONE = object()
_OF_WHAT_IS_THERE: tuple[type, ...] = (type(iter([])), type(iter(())))
"""Iterators over a list or tuple of batches: they run no code that could draw."""


class WatchedLoader:
    """Gives what `loader` gives, with the generators seeded before each batch.

    Args:
        loader: The user's.
        bookmarks: Of what has a state.
        order: What the order depends on.
        seed: Of randomness.
        rank: This process.
        position: Where to begin.
    """

    def __init__(
        self,
        loader: Iterable[Any],
        bookmarks: Bookmarks,
        *,
        order: dict[str, Any] | None = None,
        seed: int,
        rank: int,
        position: Position,
    ) -> None:
        self.loader = loader
        self.batches, self.order = self, order  # as the batches of a SeededLoader have one
        self.seed = seed
        self.rank = rank
        self.position = position
        self.state_at = bookmarks.state_at
        self._bookmarks = bookmarks

    def __len__(self) -> int:
        return len(self.loader)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[Any]:  # a generator: Lightning calls it once for trying
        epoch, done = self.position()
        tell_epoch(self.loader, epoch)
        number = self._bookmarks.begin(epoch, done)
        if number is None:
            return
        self._seed("order", epoch, number)
        with patient_workers(self.loader):
            batches = iter(self.loader)
        bookmarks = self._bookmarks
        has_state = bookmarks.holder is not None
        seeds = derive_seeds(self.seed, "step", epoch, max(number, done), self.rank)
        upcoming = self._load(batches, epoch, number)
        while upcoming is not _NONE:
            batch = upcoming
            if has_state:  # which does not say that nothing follows
                bookmarks.mark(number + 1)
                upcoming = self._load(batches, epoch, number + 1)
                if upcoming is _NONE:
                    bookmarks.mark(number + 1, over=True)
                bookmarks.forget_before(number)
            if number >= done:
                seed_generators(next(seeds))
                yield batch
            number += 1
            if not has_state:
                upcoming = self._load(batches, epoch, number)
        self._seed("last step", epoch, number)  # asked before it where the length is not known

    def _load(self, batches: Iterator[Any], epoch: int, number: int) -> Any:
        if type(batches) not in _OF_WHAT_IS_THERE:
            self._seed("data", epoch, number)
        return next(batches, _NONE)

    def __getattr__(self, name: str) -> Any:
        # Its state is asked for by Lightning as well, which would save one that is a batch ahead.
        if name in ("loader", "state_dict", "load_state_dict"):
            raise AttributeError(name)
        return getattr(self.loader, name)

    @property
    def _iterator(self) -> Any:  # Lightning ends the workers behind it
        return getattr(self.loader, "_iterator", None)

    @_iterator.setter
    def _iterator(self, iterator: Any) -> None:
        if hasattr(self.loader, "_iterator"):
            self.loader._iterator = iterator

    def _seed(self, role: str, epoch: int, number: int) -> None:
        seed_generators(derive_seed(self.seed, role, epoch, number, self.rank))
