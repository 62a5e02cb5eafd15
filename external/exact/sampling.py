"""The order of training samples: a function of seed and epoch, cut into global batches.

The same samples meet in the same global batch whatever the number of processes, and an epoch can
be entered at any batch: that is what a resume needs. Rank r of W takes every W-th sample of each
global batch, beginning with the r-th.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch.utils.data import Sampler

from ..refused import Refused
from .randomness import SeededBatch, derive_seed, seeded_apart

Position = Callable[[], tuple[int, int]]
"""Returns (epoch, batches of it that are done); asked whenever an iteration begins."""


class UnevenBatch(Refused):
    """Samples do not divide over the processes; the message says which numbers would."""


class GlobalBatchSampler(Sampler[list[int]]):
    """Yields this rank's part of every global batch of one epoch, from the asked position on.

    `len()` is the number of batches of a whole epoch, wherever the iteration begins.

    Args:
        samples: Size of the data set.
        batch_size: Samples per batch over all ranks.
        rank: This process.
        world_size: All processes.
        shuffle: Permute by a generator seeded with `seed` and the epoch; otherwise in order.
        drop_last: Leave out a last batch that is not full.
        seed: Of the order of samples, the same on every rank.
        position: Where to begin.
        sampler: One of torch's that draws in another way than `shuffle`; its length is `samples`.
        role: What the batches are for; other roles find other random numbers.

    Raises:
        UnevenBatch: A batch cannot be divided so that every rank gets samples of its own.
    """

    def __init__(
        self,
        samples: int,
        *,
        batch_size: int,
        rank: int,
        world_size: int,
        shuffle: bool,
        drop_last: bool,
        seed: int,
        position: Position,
        sampler: Iterable[int] | None = None,
        role: str = "",
    ) -> None:
        if batch_size % world_size:
            raise UnevenBatch(
                f"Global batch size {batch_size} does not divide over {world_size} processes. "
                f"Use a multiple of {world_size}, e.g. {-(-batch_size // world_size) * world_size}."
            )
        remainder = samples % batch_size
        if not drop_last and 0 < remainder < world_size:
            raise UnevenBatch(
                f"{samples} samples in batches of {batch_size} leave a last batch of {remainder}, "
                f"too few for {world_size} processes. Use another batch size or "
                "DataLoader(drop_last=True)."
            )
        self.samples = samples
        self.batch_size = batch_size
        self.rank = rank
        self.world_size = world_size
        self.shuffle = shuffle
        self.drop_last = drop_last
        self.seed = seed
        self.position = position
        self.sampler = sampler
        self.role = role

    @property
    def order(self) -> dict[str, Any]:
        """What the order depends on besides the epoch."""
        names = ("samples", "batch_size", "shuffle", "drop_last", "seed")
        return {name: getattr(self, name) for name in names}

    def __len__(self) -> int:
        whole, remainder = divmod(self.samples, self.batch_size)
        return whole if self.drop_last or not remainder else whole + 1

    def __iter__(self) -> Iterator[list[int]]:
        return self._batches(*self.position())

    def _batches(self, epoch: int, done: int) -> Iterator[list[int]]:
        order, role = self._order(epoch), f"{self.role}data"
        for batch in range(done, len(self)):
            start = batch * self.batch_size
            indices = order[start : start + self.batch_size][self.rank :: self.world_size]
            yield SeededBatch(indices, self.seed, role, epoch, batch, self.rank)

    def samples_before(self, epoch: int, batches: int) -> int:
        """Return how many samples all ranks have seen after `epoch` epochs and `batches` more."""
        per_epoch = self.samples
        if self.drop_last:
            per_epoch -= self.samples % self.batch_size
        return epoch * per_epoch + min(batches * self.batch_size, per_epoch)

    def _order(self, epoch: int) -> list[int]:
        if self.sampler is not None:
            seed = derive_seed(self.seed, f"{self.role}order", epoch)
            own = getattr(self.sampler, "generator", None)
            if own is not None:
                own.manual_seed(seed)
            with seeded_apart(seed):
                return list(self.sampler)
        if not self.shuffle:
            return list(range(self.samples))
        generator = torch.Generator().manual_seed(self.seed + epoch)
        order: list[int] = torch.randperm(self.samples, generator=generator).tolist()
        return order
