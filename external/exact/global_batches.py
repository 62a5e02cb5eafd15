"""The global batches of a user's plain loader."""

from collections.abc import Sized
from typing import Any, cast

from lightning.pytorch import Trainer
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, SequentialSampler

from .sampling import GlobalBatchSampler


def global_batches(
    loader: DataLoader[Any],
    batch_size: int | None,
    *,
    trainer: Trainer | None,
    shuffled: bool = True,
    **place: Any,
) -> GlobalBatchSampler:
    """Return what samples as `loader` does, the same on every rank.

    Args:
        loader: A plain one, see `why_not_plain`.
        batch_size: Samples per batch over all ranks; None takes the loader's own.
        trainer: Its ranks divide each batch; None: each rank gets all of it.
        shuffled: Otherwise a loader that shuffles does not.
        place: More arguments of `GlobalBatchSampler`.
    """
    batches = cast(BatchSampler, loader.batch_sampler)
    return GlobalBatchSampler(
        batch_size=batch_size or batches.batch_size,
        world_size=1 if trainer is None else trainer.world_size,
        drop_last=batches.drop_last,
        **drawing(loader, shuffled=shuffled),
        **place,
    )


def drawing(loader: DataLoader[Any], *, shuffled: bool) -> dict[str, Any]:
    """Return how `loader` draws its samples, as arguments of `GlobalBatchSampler`.

    Args:
        loader: A plain one, see `why_not_plain`.
        shuffled: Otherwise a loader that shuffles does not.
    """
    sampler = cast(BatchSampler, loader.batch_sampler).sampler
    samples = len(cast(Sized, sampler))
    is_whole = samples == len(cast(Sized, loader.dataset))
    shuffles = type(sampler) is RandomSampler and not sampler.replacement and is_whole
    is_plain = shuffles or type(sampler) is SequentialSampler
    return {
        "samples": samples,
        "shuffle": shuffles and shuffled,
        "sampler": None if is_plain else sampler,
    }
