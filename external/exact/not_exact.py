"""What of a Trainer's settings no resume can repeat, said as its fit begins."""

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities import rank_zero_warn
from lightning.pytorch.utilities.model_helpers import is_overridden


def say_what_is_not_exact(trainer: Trainer) -> None:
    """Warn of each; data say their own as their loaders are made."""
    if trainer._val_check_time_interval is not None:  # type: ignore[attr-defined]
        rank_zero_warn(
            "val_check_interval is a time: when a validation runs depends on the clock, and no "
            "resume can repeat it. Give a number of batches to be exact."
        )
    if is_overridden("on_train_batch_end", trainer.lightning_module) and any(
        isinstance(callback, ModelCheckpoint)
        and (callback._every_n_train_steps > 0 or callback._train_time_interval is not None)
        for callback in trainer.callbacks  # type: ignore[attr-defined]
    ):
        rank_zero_warn(
            f"ModelCheckpoint saves in on_train_batch_end, before {_name(trainer)}'s own hook of "
            "that name: a resume from its files lacks the last batch's. Save with "
            "PeriodicCheckpoint(…, CheckpointParams(every_n_steps=…)) to be exact."
        )


def _name(trainer: Trainer) -> str:
    return type(trainer.lightning_module).__qualname__
