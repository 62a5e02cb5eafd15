"""Batch samplers over the global batch, which go on after so many steps.

    sampler = ResumableRandomSampler(len(data), 64, drop_last=True, seed=7,
                                     data_parallel_rank=rank, data_parallel_size=world_size)
    sampler.set_processed_steps(step)
    loader = DataLoader(data, batch_sampler=sampler)

The slices are those of PeriFlow's samplers of the same names: a run may change from one to the
other. As there, an epoch counts as many steps as batches that are begun, also with `drop_last`:
choose a batch size that divides the samples, or a resume in a later epoch begins elsewhere.
"""

from collections.abc import Iterator

from .errors import PeriFlowError


class UnevenShares(PeriFlowError, AssertionError):
    """The ranks would not get equal shares."""


class _GlobalBatches:
    """What both samplers are told: `batch_size` samples of all ranks together make a step.

    Args:
        samples_per_epoch: How many samples there are.
        batch_size: Samples of one step, over all ranks.
        drop_last: Leave out what is left at an epoch's end and fills no batch.
        data_parallel_rank: This rank.
        data_parallel_size: How many ranks share each batch.

    Raises:
        UnevenShares: Samples or batch cannot be shared evenly.
    """

    def __init__(
        self,
        samples_per_epoch: int,
        batch_size: int,
        drop_last: bool = False,
        data_parallel_rank: int = 0,
        data_parallel_size: int = 1,
    ) -> None:
        if batch_size % data_parallel_size:
            raise UnevenShares(
                f"batch_size {batch_size} is not a multiple of data_parallel_size "
                f"{data_parallel_size}. It counts the samples of all ranks: choose a multiple."
            )
        if samples_per_epoch % data_parallel_size and not drop_last:
            raise UnevenShares(
                f"samples_per_epoch {samples_per_epoch} is not divisible by data_parallel_size "
                f"{data_parallel_size}: samples would be there twice. Set drop_last=True."
            )
        self._samples = samples_per_epoch
        self._batch_size = batch_size
        self._drop_last = drop_last
        self._rank = data_parallel_rank
        self._ranks = data_parallel_size
        self._epoch = 0
        self._begin = 0  # samples of this epoch that earlier steps took

    def set_processed_steps(self, processed_steps: int) -> None:
        """Go on after so many steps since the beginning of the first epoch."""
        steps_per_epoch = -(-self._samples // self._batch_size)
        self._epoch, steps = divmod(processed_steps, steps_per_epoch)
        self._begin = steps * self._batch_size

    def __len__(self) -> int:
        """Return the samples of an epoch, as PeriFlow's samplers do: not the batches."""
        return self._samples

    def _end_epoch(self) -> None:
        self._epoch, self._begin = self._epoch + 1, 0


class ResumableSequentialSampler(_GlobalBatches):
    """Batches in the data's order; rank r takes the r-th slice of each."""

    def __iter__(self) -> Iterator[list[int]]:
        """Yield this rank's share of each batch that is left of the epoch."""
        for begin in range(self._begin, self._samples, self._batch_size):
            size = min(self._batch_size, self._samples - begin)
            if size == self._batch_size or not self._drop_last:
                share = size // self._ranks
                first = begin + self._rank * share
                yield list(range(first, first + share))
        self._end_epoch()


class ResumableRandomSampler(_GlobalBatches):
    """Batches in an order that seed and epoch give; rank r draws from the r-th part of the data."""

    def __init__(
        self,
        samples_per_epoch: int,
        batch_size: int,
        drop_last: bool = False,
        seed: int = 0,
        data_parallel_rank: int = 0,
        data_parallel_size: int = 1,
    ) -> None:
        super().__init__(
            samples_per_epoch, batch_size, drop_last, data_parallel_rank, data_parallel_size
        )
        self._seed = seed

    def __iter__(self) -> Iterator[list[int]]:
        """Yield this rank's share of each batch that is left of the epoch."""
        import torch

        part, share = self._samples // self._ranks, self._batch_size // self._ranks
        generator = torch.Generator().manual_seed(self._seed + self._epoch + 1)
        order = torch.randperm(part, generator=generator).tolist()
        for begin in range(self._begin // self._ranks, part, share):
            chosen = order[begin : begin + share]
            if len(chosen) == share or not self._drop_last:
                yield [self._rank * part + index for index in chosen]
        self._end_epoch()
