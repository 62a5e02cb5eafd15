"""What a user's loader is, as far as its order of samples and entering it in the middle go."""

import warnings
from typing import Any

from torch.utils.data import (
    BatchSampler,
    DataLoader,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
)

from .own_order import Stateful
from .plain import NotPlain, plain

_TORCHS = (SequentialSampler, RandomSampler, SubsetRandomSampler, WeightedRandomSampler)
"""Samplers whose order is one draw from a generator: with the same seed, the same order."""


def why_not_plain(loader: Any) -> str | None:
    """Return why a loader's order is not ours to define, or None if it is."""
    if type(loader) is not DataLoader:
        return f"a {type(loader).__name__} instead of a DataLoader"
    if isinstance(loader.dataset, IterableDataset):
        return "an IterableDataset"
    if loader.batch_sampler is None:
        return "no automatic batching"
    if type(loader.batch_sampler) is not BatchSampler:
        return f"a batch sampler of its own ({type(loader.batch_sampler).__name__})"
    if type(loader.batch_sampler.sampler) not in _TORCHS:
        return f"a sampler of its own ({type(loader.batch_sampler.sampler).__name__})"
    return None


def is_indexed(loader: Any) -> bool:
    """Return whether its batches are indices into a data set."""
    return (
        type(loader) is DataLoader
        and not isinstance(loader.dataset, IterableDataset)
        and loader.batch_sampler is not None
    )


def with_state(loader: Any) -> Stateful | None:
    """Return what says and restores where `loader` stands, or None."""
    candidates = [loader]
    if is_indexed(loader):
        candidates = [loader.batch_sampler, sampler_of(loader)]
    elif type(loader) is DataLoader:  # in workers there are copies of it, out of reach
        candidates = [loader.sampler, loader.dataset] if loader.num_workers == 0 else []
    for candidate in candidates:
        if isinstance(candidate, Stateful):
            try:
                plain(candidate.state_dict())
            except NotPlain as error:
                warnings.warn(
                    f"The state_dict of {type(candidate).__name__} has {error}, which a checkpoint "
                    "does not hold. Return numbers, texts and tensors.",
                    stacklevel=2,
                )
                continue
            return candidate
    return None


def divides_itself(loader: Any) -> bool:
    """Return whether the user has seen to it that each rank gets its part."""
    return isinstance(sampler_of(loader), DistributedSampler) or isinstance(
        getattr(loader, "dataset", None), IterableDataset
    )


def sampler_of(loader: Any) -> Any:
    """Return what draws the samples: of the batch sampler, if that is one of torch's."""
    if type(getattr(loader, "batch_sampler", None)) is BatchSampler:
        return loader.batch_sampler.sampler
    return getattr(loader, "sampler", None)
