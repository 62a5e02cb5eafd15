"""What each rank knows, in the one file that rank 0 writes."""

from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.utilities import rank_zero_warn


def part_of(trainer: Trainer, saved: dict[str, Any]) -> dict[str, Any] | None:
    """Return this rank's part of what was saved, or None if there is none."""
    if saved["world_size"] == trainer.world_size and len(saved["ranks"]) == trainer.world_size:
        part: dict[str, Any] = saved["ranks"][trainer.global_rank]
        return part
    rank_zero_warn(
        f"The checkpoint has what {len(saved['ranks'])} of {saved['world_size']} processes knew of "
        f"the epoch under way, and here are {trainer.world_size}: the means that are logged at the "
        "end of this epoch are of its remaining batches."
    )
    return None


def gathered(trainer: Trainer, own: dict[str, Any]) -> list[dict[str, Any]]:
    """Return every rank's `own` on rank 0, which writes; nothing elsewhere."""
    if trainer.world_size == 1:
        return [own]
    parts: list[Any] | None = [None] * trainer.world_size if trainer.is_global_zero else None
    torch.distributed.gather_object(own, parts)
    return parts or []
