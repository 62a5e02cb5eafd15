"""A user's data on our order of samples: plain loaders are rebuilt, everything else is said.

Lightning's own distributed sampler orders, pads and repeats samples by the number of processes,
and begins an epoch anew on resume. Here `train_dataloader()` and the evaluation loaders of a
LightningDataModule give the same data set, workers and collation over a `GlobalBatchSampler`.
"""

import warnings
from collections.abc import Iterator, Sized
from typing import Any, cast

from lightning.pytorch import LightningDataModule, Trainer
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
)

from .data_modules import EVALUATION_LOADERS
from .randomness import SeededDataset, derive_seed, seed_generators
from .sampling import GlobalBatchSampler, UnevenBatch

_KEPT = (
    *("num_workers", "collate_fn", "pin_memory", "timeout", "worker_init_fn"),
    *("multiprocessing_context", "generator", "prefetch_factor", "persistent_workers"),
    *("pin_memory_device", "in_order"),
)
"""What a rebuilt loader takes over from the user's."""


class SeededLoader(DataLoader[Any]):
    """A DataLoader over a `GlobalBatchSampler` that seeds every training step before it begins.

    What the step does with a batch (transfer hooks, dropout) thus depends on where it stands
    alone, whoever loaded the batch and whatever ran before.
    """

    def __iter__(self) -> Any:
        sampler = cast(GlobalBatchSampler, self.batch_sampler)
        epoch, done = sampler.position()
        # Made now, not at the first batch: workers begin to load ahead.
        batches = super().__iter__()

        def seeded() -> Iterator[Any]:
            for number, batch in enumerate(batches, start=done):
                place = (epoch, number, sampler.rank)
                seed_generators(derive_seed(sampler.seed, "step", *place))
                yield batch

        return seeded()


def put_in_order(
    data: LightningDataModule, trainer: Trainer, *, batch_size: int | None, seed: int
) -> None:
    """Make the loaders of `data` follow our order of samples; changes the instance.

    Args:
        data: The user's data module.
        trainer: Runs it; its progress says where an epoch is entered.
        batch_size: Samples per batch of the loader over all ranks; None takes the loader's own
            batch size as the global one.
        seed: Of the order of samples.
    """

    def position() -> tuple[int, int]:
        epoch_loop = trainer.fit_loop.epoch_loop
        done = epoch_loop.batch_progress.current.ready
        if done >= trainer.num_training_batches:  # left over from the epoch before
            done = 0
        return trainer.fit_loop.epoch_progress.current.processed, done  # type: ignore[attr-defined]

    own_train = data.train_dataloader

    def train_dataloader() -> Any:
        return _train_loader(own_train(), trainer, batch_size, seed, position)

    data.train_dataloader = train_dataloader  # type: ignore[method-assign]
    for name in EVALUATION_LOADERS:
        own = getattr(data, name)
        if getattr(own, "__func__", own) is getattr(LightningDataModule, name):
            continue  # not defined by the user

        def evaluation_dataloader(own: Any = own) -> Any:
            return _evaluation_loaders(own(), trainer, batch_size)

        setattr(data, name, evaluation_dataloader)


def train_sampler(trainer: Trainer) -> GlobalBatchSampler | None:
    """Return the sampler of the training data, or None where it is not ours."""
    sampler = getattr(trainer.train_dataloader, "batch_sampler", None)
    return sampler if isinstance(sampler, GlobalBatchSampler) else None


def _train_loader(
    loader: Any, trainer: Trainer, batch_size: int | None, seed: int, position: Any
) -> Any:
    reason = _why_not_plain(loader)
    if reason is not None:
        if trainer.world_size > 1 and not _divides_itself(loader):
            raise UnevenBatch(
                f"The training data has {reason}: every one of the {trainer.world_size} processes "
                "would train on all of it. Divide it by rank, or use a plain DataLoader."
            )
        warnings.warn(
            f"The training data has {reason}, whose position cannot be restored: a resume in the "
            "middle of an epoch begins it anew. A plain DataLoader over a map-style data set "
            "resumes exactly.",
            stacklevel=2,
        )
        return loader
    # Lightning says so of every loader without a state; this one begins where the run stopped.
    warnings.filterwarnings("ignore", "You're resuming from a checkpoint that ended before")
    return _rebuilt(
        loader,
        GlobalBatchSampler(
            len(cast(Sized, loader.dataset)),
            batch_size=batch_size or loader.batch_size,
            rank=trainer.global_rank,
            world_size=trainer.world_size,
            shuffle=isinstance(loader.sampler, RandomSampler),
            drop_last=loader.drop_last,
            seed=seed,
            position=position,
        ),
        training=True,
    )


def _evaluation_loaders(loaders: Any, trainer: Trainer, batch_size: int | None) -> Any:
    if isinstance(loaders, list | tuple):
        return [_evaluation_loaders(loader, trainer, batch_size) for loader in loaders]
    if trainer.world_size == 1 or _why_not_plain(loaders) is not None:
        return loaders
    samples, size = len(cast(Sized, loaders.dataset)), batch_size or loaders.batch_size
    if size % trainer.world_size or (samples % size) % trainer.world_size:
        return loaders  # uneven parts would weigh wrongly: every rank evaluates everything
    return _rebuilt(
        loaders,
        GlobalBatchSampler(
            samples,
            batch_size=size,
            rank=trainer.global_rank,
            world_size=trainer.world_size,
            shuffle=False,
            drop_last=loaders.drop_last,
            seed=0,
            position=lambda: (0, 0),
        ),
        training=False,
    )


def _why_not_plain(loader: Any) -> str | None:
    """Return why a loader's order is not ours to define, or None if it is."""
    if type(loader) is not DataLoader:
        return f"a {type(loader).__name__} instead of a DataLoader"
    if isinstance(loader.dataset, IterableDataset):
        return "an IterableDataset"
    if loader.batch_sampler is None:
        return "no automatic batching"
    if type(loader.batch_sampler) is not BatchSampler:
        return f"a batch sampler of its own ({type(loader.batch_sampler).__name__})"
    if isinstance(loader.sampler, RandomSampler):
        if loader.sampler.replacement or len(loader.sampler) != len(cast(Sized, loader.dataset)):
            return "a RandomSampler with replacement or another length"
        return None
    if type(loader.sampler) is not SequentialSampler:
        return f"a sampler of its own ({type(loader.sampler).__name__})"
    return None


def _divides_itself(loader: Any) -> bool:
    """Return whether the user has seen to it that each rank gets its part."""
    sampler = getattr(loader, "sampler", None)
    return isinstance(sampler, DistributedSampler) or isinstance(
        getattr(loader, "dataset", None), IterableDataset
    )


def _rebuilt(
    loader: DataLoader[Any], sampler: GlobalBatchSampler, *, training: bool
) -> DataLoader[Any]:
    kept = {name: getattr(loader, name) for name in _KEPT if hasattr(loader, name)}
    if training:
        return SeededLoader(SeededDataset(loader.dataset), batch_sampler=sampler, **kept)
    return DataLoader(loader.dataset, batch_sampler=sampler, **kept)
