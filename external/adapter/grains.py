"""Grains: the fixed parts of a global batch whose gradients are computed one by one.

With `exact="world"` a training is defined by its seed, its global batch and its grain, and not by
its processes. Each global batch is cut into the same 2**n grains, each process takes a run of
them that lie together, and everything random in a grain follows from the seed and the place of the
grain. The last global batch of an epoch, if it is smaller, is spread evenly over as many grains.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ..exact.randomness import SeededBatch, derive_seed, seed_generators
from ..exact.sampling import GlobalBatchSampler, UnevenBatch
from ..exact.seeded_loader import SeededLoader


@dataclass(frozen=True)
class Grain:
    """One part of a global batch.

    Attributes:
        batch: The number of the global batch in its epoch.
        number: Of the grain in its global batch, from 0; the same whatever the processes.
        start: Where its samples begin in the order of the epoch.
        samples: How many it has.
        weight: Its part of the samples of the global batch: what its mean loss counts for.
        is_first: Whether it is this process's first of its global batch.
        is_last: Whether it is this process's last of its global batch.
    """

    batch: int
    number: int
    start: int
    samples: int
    weight: float
    is_first: bool
    is_last: bool


@dataclass(frozen=True)
class Grains:
    """How the global batches of an epoch are cut, and which grains are this process's.

    Args:
        samples: Of an epoch.
        batch_size: Samples of a global batch: of one optimizer step.
        grain: Samples of one grain.
        rank: This process.
        world_size: All processes.
        drop_last: Leave out a last global batch that is not full.

    Raises:
        UnevenBatch: The numbers do not fit; the message says which would.
    """

    samples: int
    batch_size: int
    grain: int
    rank: int = 0
    world_size: int = 1
    drop_last: bool = False

    def __post_init__(self) -> None:
        of = self.batch_size // self.grain if self.grain > 0 else 0
        if of < 1 or self.batch_size % self.grain or of & (of - 1):
            fits = [self.batch_size // 2**n for n in range(16) if self.batch_size % 2**n == 0]
            raise UnevenBatch(
                f"A global batch of {self.batch_size} in grains of {self.grain}: exact='world' "
                "adds gradients up in a tree, which takes 1, 2, 4, 8 … grains. Use a grain of "
                f"{', '.join(map(str, fits))}."
            )
        if self.world_size & (self.world_size - 1) or self.world_size > of:
            raise UnevenBatch(
                f"{self.world_size} processes for global batches of {of} grains (batch_size="
                f"{self.batch_size}, grain={self.grain}): exact='world' takes 1, 2, 4, 8 … "
                f"processes, at most {of} of them. Use another number, or a smaller grain for more."
            )
        rest = self.samples % self.batch_size
        if not self.drop_last and 0 < rest < of:
            raise UnevenBatch(
                f"{self.samples} samples in global batches of {self.batch_size} leave a last one "
                f"of {rest}, too few for its {of} grains. Use another batch size, a bigger grain "
                "or DataLoader(drop_last=True)."
            )

    @property
    def per_batch(self) -> int:
        """Grains of a global batch over all processes."""
        return self.batch_size // self.grain

    @property
    def per_rank(self) -> int:
        """Grains of a global batch that are this process's."""
        return self.per_batch // self.world_size

    @property
    def batches(self) -> int:
        """Global batches of an epoch."""
        whole, rest = divmod(self.samples, self.batch_size)
        return whole + (rest > 0 and not self.drop_last)

    def at(self, index: int) -> Grain:
        """Return this process's grain number `index` of an epoch, counting through its batches."""
        batch, own = divmod(index, self.per_rank)
        number = self.rank * self.per_rank + own
        start = batch * self.batch_size
        size = min(self.batch_size, self.samples - start)
        least, more = divmod(size, self.per_batch)  # the first `more` grains have one more
        return Grain(
            batch=batch,
            number=number,
            start=start + number * least + min(number, more),
            samples=least + (number < more),
            weight=(least + (number < more)) / size,
            is_first=own == 0,
            is_last=own == self.per_rank - 1,
        )

    def __len__(self) -> int:
        """Return how many grains of an epoch are this process's."""
        return self.batches * self.per_rank


class GrainSampler(GlobalBatchSampler):
    """Yields this process's grains of one epoch, in the order of `GlobalBatchSampler`'s samples.

    Its `position` says (epoch, grains of this process that are done); `len()` counts these too.

    Args:
        grains: How an epoch is cut.
        options: Of `GlobalBatchSampler`, but those that `grains` says.
    """

    def __init__(self, grains: Grains, **options: Any) -> None:
        super().__init__(
            grains.samples,
            batch_size=grains.batch_size,
            rank=grains.rank,
            world_size=grains.world_size,
            drop_last=grains.drop_last,
            **options,
        )
        self.grains = grains

    @property
    def order(self) -> dict[str, Any]:
        """What the order depends on besides the epoch; not on the number of processes."""
        return {**super().order, "grain": self.grains.grain}

    def __len__(self) -> int:
        return len(self.grains)

    def samples_before(self, epoch: int, batches: int) -> int:
        """Return how many samples all processes saw in `epoch` epochs and `batches` own grains."""
        return super().samples_before(epoch, batches // self.grains.per_rank)

    def seed_at(self, role: str, epoch: int, index: int) -> int:
        """Return the seed for this process's grain `index`: of its place, and no process's."""
        return derive_seed(*self._place(role, epoch, self.grains.at(index)))

    def _place(self, role: str, epoch: int, grain: Grain) -> tuple[Any, ...]:
        return self.seed, f"{self.role}{role}", epoch, grain.batch, grain.number

    def _batches(self, epoch: int, done: int) -> Iterator[list[int]]:
        order: Sequence[int] = self._order(epoch)
        for index in range(done, len(self)):
            grain = self.grains.at(index)
            indices = order[grain.start : grain.start + grain.samples]
            yield SeededBatch(indices, *self._place("data", epoch, grain))


class GrainLoader(SeededLoader):
    """A user's data set, workers and collation over grains; each is seeded by its own place."""

    batches: GrainSampler

    def _seeded(self, loaded: Iterator[Any], epoch: int, done: int) -> Iterator[Any]:
        for index, grain in enumerate(loaded, start=done):
            seed_generators(self.batches.seed_at("step", epoch, index))
            yield grain
