"""What the ranks of a Lightning Trainer decide together, between two steps."""

import torch
from lightning.pytorch import Trainer

FAILED = "Rank 0 could not write a checkpoint; its log says why."


def maximum(trainer: Trainer, *values: int) -> list[int]:
    """Return the maximum of each value over all ranks, which all call this."""
    if trainer.world_size == 1:
        return list(values)
    both = torch.tensor(values, device=trainer.strategy.root_device)
    torch.distributed.all_reduce(both, op=torch.distributed.ReduceOp.MAX)
    return [int(value) for value in both.tolist()]


def raise_together(trainer: Trainer, failure: Exception | None) -> None:
    """Raise on every rank where any rank has a failure: its own, or that another has one.

    Raises:
        Exception: `failure`.
        OSError: Another rank has one.
    """
    (failed,) = maximum(trainer, int(failure is not None))
    if failure is not None:
        raise failure
    if failed:
        raise OSError(FAILED)
