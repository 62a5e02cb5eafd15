"""What a checkpoint policy means: when a save is due, and which checkpoints stay."""

from ..params.checkpoint import CheckpointParams
from .stores.retention import Retention


def is_due(policy: CheckpointParams, *, step: int, ended_epoch: int | None, seconds: float) -> bool:
    """Return whether `policy` wants a save now, between two optimizer steps.

    Args:
        policy: The occasions; any of them is enough.
        step: Optimizer steps done.
        ended_epoch: Whole epochs done, if one ended just now.
        seconds: Since the last save, or since the beginning.
    """
    by_step = policy.every_n_steps is not None and step % policy.every_n_steps == 0
    by_time = policy.every_n_seconds is not None and seconds >= policy.every_n_seconds
    by_epoch = (
        policy.every_n_epochs is not None
        and ended_epoch is not None
        and ended_epoch % policy.every_n_epochs == 0
    )
    return by_step or by_time or by_epoch


def retention(policy: CheckpointParams) -> Retention:
    """Return which checkpoints `policy` keeps."""
    return Retention(
        newest=policy.keep,
        best=policy.keep_best,
        monitor=policy.best_metric,
        mode="max" if policy.best_mode == "max" else "min",
        every=policy.keep_every_n_steps,
    )
