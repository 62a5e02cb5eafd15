"""The evaluation loaders that a user's become: divided where that is exact, seeded by the step."""

from collections.abc import Mapping
from typing import Any

from lightning.pytorch import Trainer

from .global_batches import global_batches
from .loader_kinds import why_not_plain
from .loop_position import position as position_of
from .seeded_loader import SeededLoader


def evaluation_loaders(
    loaders: Any, trainer: Trainer, *, batch_size: int | None, seed: int, role: str
) -> Any:
    """Return `loaders` with each plain one on our order; others are as they were.

    Args:
        loaders: What a user's hook returned: one, or several in a list or dict.
        trainer: Runs them.
        batch_size: Samples per batch over all ranks; None takes each loader's own.
        seed: Of what they draw.
        role: Whose; others draw other numbers.
    """
    if isinstance(loaders, list | tuple | Mapping):
        names = enumerate(loaders)
        made = [
            evaluation_loaders(
                loader, trainer, batch_size=batch_size, seed=seed, role=f"{role} {name} "
            )
            for name, loader in (loaders.items() if isinstance(loaders, Mapping) else names)
        ]
        return dict(zip(loaders, made, strict=True)) if isinstance(loaders, Mapping) else made
    if why_not_plain(loaders) is not None:
        return loaders
    batches = loaders.batch_sampler
    samples, size = len(batches.sampler), batch_size or batches.batch_size

    def position() -> tuple[int, int]:
        epochs, batches = position_of(trainer, ended=False)
        return (epochs << 32) + batches, 0  # each validation is an epoch of its own

    # Uneven parts would weigh wrongly: then every rank evaluates everything.
    is_even = size % trainer.world_size == 0 and samples % size % trainer.world_size == 0
    sampler = global_batches(
        loaders,
        batch_size if trainer.world_size > 1 and is_even else None,
        trainer=trainer if is_even else None,
        rank=trainer.global_rank if is_even else 0,
        seed=seed,
        position=position,
        role=role,
    )
    return SeededLoader(loaders, sampler)
