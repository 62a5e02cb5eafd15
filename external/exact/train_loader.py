"""The training loader that a user's becomes, which an epoch can be entered with anywhere."""

import warnings
from collections.abc import Callable
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.utilities.combined_loader import CombinedLoader
from torch.utils.data import DistributedSampler

from .exact_resume import ExactResume
from .global_batches import global_batches
from .loader_kinds import divides_itself, is_indexed, sampler_of, why_not_plain, with_state
from .own_order import Bookmarks, OwnOrder
from .sampling import Position, UnevenBatch
from .seeded_loader import SeededLoader
from .watched_loader import WatchedLoader


def train_loader(
    loader: Any, trainer: Trainer, exact: ExactResume, *, batch_size: int | None, seed: int
) -> Any:
    """Return `loader` on our order of samples, or on its own from where the training stands.

    Args:
        loader: What a user's `train_dataloader` returned; a collection of loaders keeps the batch
            size of each.
        trainer: Its progress says where an epoch is entered.
        exact: Its callback, which has what the checkpoint says of the order.
        batch_size: Samples per batch over all ranks; None takes the loader's own.
        seed: Of the order of samples, and of what it draws.

    Raises:
        UnevenBatch: All processes would train on all of it.
    """
    # Lightning says so of every loader without a state; this one begins where the run stopped.
    warnings.filterwarnings("ignore", "You're resuming from a checkpoint that ended before")
    place = {"rank": trainer.global_rank, "seed": seed}
    overfits = trainer.overfit_batches > 0  # type: ignore[attr-defined]

    def position() -> tuple[int, int]:
        epoch = trainer.fit_loop.epoch_progress.current
        batch = trainer.fit_loop.epoch_loop.batch_progress.current
        is_under_way = epoch.started > epoch.processed  # type: ignore[attr-defined]
        return epoch.processed, batch.ready if is_under_way else 0  # type: ignore[attr-defined]

    if isinstance(loader, list | tuple | dict | CombinedLoader):
        return _several(loader, trainer, position, shuffled=not overfits, **place)
    if why_not_plain(loader) is not None:
        return _in_its_own_order(loader, trainer, exact, position=position, **place)
    sampler = global_batches(
        loader, batch_size, trainer=trainer, shuffled=not overfits, position=position, **place
    )
    exact.compare_order(sampler.order)
    return SeededLoader(loader, sampler)


def _in_its_own_order(
    loader: Any, trainer: Trainer, exact: ExactResume, **place: Any
) -> SeededLoader | WatchedLoader:
    reason = why_not_plain(loader)
    _refuse_undivided(loader, trainer, reason)
    holder = with_state(loader)
    if holder is None and type(sampler_of(loader)) is not DistributedSampler:
        warnings.warn(
            f"The training data has {reason} without state_dict and load_state_dict, whose "
            "position cannot be restored: a resume in the middle of an epoch runs through what was "
            "done once more, and is exact only if the same comes again. A plain DataLoader over a "
            "map-style data set resumes exactly.",
            stacklevel=2,
        )
    order = {"processes": trainer.world_size}  # which have a part each, as the user divides it
    exact.compare_order(order)
    bookmarks = Bookmarks(holder, exact.take_data_state())
    if is_indexed(loader):
        return SeededLoader(loader, OwnOrder(loader.batch_sampler, bookmarks, order=order, **place))
    return WatchedLoader(loader, bookmarks, order=order, **place)


def _several(
    loaders: Any, trainer: Trainer, position: Position, *, shuffled: bool, **place: Any
) -> Any:
    """Return Lightning's combination of loaders, each on our order."""
    combined = loaders
    if not isinstance(loaders, CombinedLoader):
        combined = CombinedLoader(loaders, "max_size_cycle")  # as Lightning does
    for loader in combined.flattened:
        reason = why_not_plain(loader)
        if reason is not None:
            _refuse_undivided(loader, trainer, reason)
            warnings.warn(
                f"The training data are several loaders, one of them with {reason}: a resume in "
                "the middle of an epoch begins it anew. Plain DataLoaders over map-style data sets "
                "resume exactly.",
                stacklevel=2,
            )
            return loaders
    combined.flattened = [
        SeededLoader(
            loader,
            global_batches(
                loader,
                None,
                trainer=trainer,
                shuffled=shuffled,
                position=_position_of_one(position, len(loader), combined._mode),
                role=f"{number} ",
                **place,
            ),
        )
        for number, loader in enumerate(combined.flattened)
    ]
    return combined


def _position_of_one(position: Position, batches: int, mode: str) -> Callable[[], tuple[int, int]]:
    """Return where a loader of `batches` stands that begins again until the longest one ends."""

    def of_one() -> tuple[int, int]:
        epoch, done = position()
        rounds = done // batches if mode == "max_size_cycle" else 0
        return (epoch << 20) + rounds, min(done - rounds * batches, batches)

    return of_one


def _refuse_undivided(loader: Any, trainer: Trainer, reason: str | None) -> None:
    if trainer.world_size > 1 and not divides_itself(loader):
        raise UnevenBatch(
            f"The training data has {reason}: every one of the {trainer.world_size} processes "
            "would train on all of it. Divide it by rank, or use a plain DataLoader."
        )
