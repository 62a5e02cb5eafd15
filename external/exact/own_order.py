"""An order of samples that a user's sampler defines, entered in the middle of an epoch.

A sampler with `state_dict` and `load_state_dict` is asked for its state after every batch of
indices, for workers draw ahead of what is trained on, and gets the one of the batch that was
trained on last. One without is iterated over again and its first batches are left out, which is
exact if it gives the same order again. Either draws from generators that are seeded by epoch and
batch, so that one which shuffles with the global generators does.
"""

from collections.abc import Iterable, Iterator
from typing import Any, Protocol, runtime_checkable

from torch.utils.data import Sampler

from .plain import plain
from .randomness import SeededBatch, derive_seed, seeded_apart
from .sampling import Position


@runtime_checkable
class Stateful(Protocol):
    """What can be saved and put back; `plain` data only."""

    def state_dict(self) -> dict[str, Any]:
        """Return where it stands."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there: the next iteration begins with what would have come."""


class Bookmarks:
    """The states of `holder` after each batch of the epoch under way, as far as they are needed.

    In a checkpoint: `{"state": {…}, "over": False}`; over: there is no batch after it.

    Args:
        holder: Whose states; None remembers nothing.
        saved: What an earlier attempt saved, for the first iteration.
    """

    def __init__(self, holder: Stateful | None, saved: dict[str, Any] | None) -> None:
        self.holder = holder
        self._saved = saved
        self._epoch = -1
        self._marks: dict[int, dict[str, Any]] = {}

    def begin(self, epoch: int, done: int) -> int | None:
        """Put the holder where an iteration begins.

        Returns:
            The number of the first batch that comes, or None if none does.
        """
        saved, self._saved = self._saved, None
        if self.holder is None:
            return 0
        self._epoch, self._marks = epoch, {}
        if saved is None:
            self.mark(0)
            return 0
        self.holder.load_state_dict(saved["state"])
        is_over = done > 0 and saved["over"]
        self.mark(done, over=is_over)
        return None if is_over else done

    def mark(self, done: int, *, over: bool = False) -> None:
        """Take note of the state after `done` batches."""
        if self.holder is not None:
            self._marks[done] = {"state": plain(self.holder.state_dict()), "over": over}

    def forget_before(self, number: int) -> None:
        """Drop what no checkpoint asks for once batch `number` is given out."""
        # Lightning holds one more back where it does not know the length.
        for old in [done for done in self._marks if done < number - 1]:
            del self._marks[old]

    def state_at(self, epoch: int, done: int, *, over: bool) -> dict[str, Any] | None:
        """Return the state after `done` batches of `epoch`; as it is now if none is to come.

        Args:
            epoch: Under way, or the next one.
            done: Batches of it.
            over: Only the end of that epoch is left.
        """
        if self.holder is None:
            return None
        if self._saved is not None:
            return self._saved  # nobody has iterated yet
        if not over and epoch == self._epoch and done in self._marks:
            return self._marks[done]
        return {"state": plain(self.holder.state_dict()), "over": over}


class OwnOrder(Sampler[list[int]]):
    """The batches of a user's batch sampler from the asked position on.

    Args:
        batches: The batch sampler; of several processes, this one's part.
        bookmarks: Of the sampler that has a state.
        order: What the order depends on.
        seed: Of what it draws.
        rank: This process.
        position: Where to begin.
    """

    role = ""

    def __init__(
        self,
        batches: Iterable[list[int]],
        bookmarks: Bookmarks,
        *,
        order: dict[str, Any] | None = None,
        seed: int,
        rank: int,
        position: Position,
    ) -> None:
        self.batches = batches
        self.order = order
        self.seed = seed
        self.rank = rank
        self.position = position
        self._bookmarks = bookmarks
        self.forget_before = bookmarks.forget_before
        self.state_at = bookmarks.state_at

    def __len__(self) -> int:
        return len(self.batches)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[list[int]]:
        return self._from(*self.position())

    def _from(self, epoch: int, done: int) -> Iterator[list[int]]:
        tell_epoch(self.batches, epoch)
        number = self._bookmarks.begin(epoch, done)
        if number is None:
            return
        drawn = _Draws(self.batches, self.seed, epoch)
        upcoming = drawn.next(number)
        while upcoming is not None:
            indices = upcoming
            self._bookmarks.mark(number + 1)
            upcoming = drawn.next(number + 1)
            if upcoming is None:
                self._bookmarks.mark(number + 1, over=True)  # with what it does behind the last
            if number >= done:
                yield SeededBatch(indices, self.seed, "data", epoch, number, self.rank)
            number += 1


class _Draws:
    """Batches of indices, each drawn with generators of its own."""

    def __init__(self, batches: Iterable[list[int]], seed: int, epoch: int) -> None:
        self._batches, self._seed, self._epoch = batches, seed, epoch
        self._iterator: Iterator[list[int]] | None = None

    def next(self, number: int) -> list[int] | None:
        with seeded_apart(derive_seed(self._seed, "order", self._epoch, number)):
            if self._iterator is None:
                self._iterator = iter(self._batches)
            return next(self._iterator, None)


def tell_epoch(batches: object, epoch: int) -> None:
    """Call `set_epoch` of a batch sampler, loader or data set and of what it draws from."""
    for found in (batches, getattr(batches, "sampler", None), getattr(batches, "dataset", None)):
        set_epoch = getattr(found, "set_epoch", None)
        if callable(set_epoch):
            set_epoch(epoch)
