"""Hooks of earlier Lightnings: version 2 finds them in a class and ignores them without a word.

A project that still defines one trains without it, and nobody sees what is missing.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Removed:
    """When a hook went away, and what does its work today.

    Attributes:
        since: The version of Lightning that no longer calls it.
        remedy: What to write instead, with the modern name.
    """

    since: str
    remedy: str


def _all(since: str, names: str, remedy: str) -> dict[str, Removed]:
    return {name: Removed(since, remedy) for name in names.split()}


_OUTPUTS = "keep what you need of the outputs in an attribute, and do the rest in"
_LOADERS = {
    "on_train_dataloader": Removed("1.7", "do it in train_dataloader"),
    "on_val_dataloader": Removed("1.7", "do it in val_dataloader"),
    "on_test_dataloader": Removed("1.7", "do it in test_dataloader"),
    "on_predict_dataloader": Removed("1.7", "do it in predict_dataloader"),
}

REMOVED_OF_MODULES: dict[str, Removed] = {
    "training_epoch_end": Removed("2.0", f"{_OUTPUTS} on_train_epoch_end"),
    "validation_epoch_end": Removed("2.0", f"{_OUTPUTS} on_validation_epoch_end"),
    "test_epoch_end": Removed("2.0", f"{_OUTPUTS} on_test_epoch_end"),
    "training_step_end": Removed("2.0", "do it at the end of training_step"),
    "validation_step_end": Removed("2.0", "do it at the end of validation_step"),
    "test_step_end": Removed("2.0", "do it at the end of test_step"),
    **_all(
        "2.0",
        "tbptt_split_batch truncated_bptt_steps",
        "divide the sequence in training_step, with automatic_optimization = False",
    ),
    "log_grad_norm": Removed(
        "2.0", "log lightning.pytorch.utilities.grad_norm(…) in on_before_optimizer_step"
    ),
    "on_pretrain_routine_start": Removed("1.8", "do it in on_fit_start"),
    "on_pretrain_routine_end": Removed("1.8", "do it in on_fit_start"),
    "on_epoch_start": Removed("1.8", "do it in on_train_epoch_start or on_validation_epoch_start"),
    "on_epoch_end": Removed("1.8", "do it in on_train_epoch_end or on_validation_epoch_end"),
    "on_batch_start": Removed("1.8", "do it in on_train_batch_start"),
    "on_batch_end": Removed("1.8", "do it in on_train_batch_end"),
    "on_hpc_save": Removed("1.8", "do it in on_save_checkpoint"),
    "on_hpc_load": Removed("1.8", "do it in on_load_checkpoint"),
    "get_progress_bar_dict": Removed("1.7", "use self.log(…, prog_bar=True)"),
    "on_post_move_to_device": Removed("1.7", "tie parameters in __init__ or on_fit_start"),
    **_LOADERS,
    "training_end": Removed("1.0", "do it at the end of training_step"),
    "validation_end": Removed("1.0", f"{_OUTPUTS} on_validation_epoch_end"),
    "test_end": Removed("1.0", f"{_OUTPUTS} on_test_epoch_end"),
    "tng_dataloader": Removed("1.0", "rename it to train_dataloader"),
    "on_sanity_check_start": Removed("1.0", "look at self.trainer.sanity_checking instead"),
    "on_sanity_check_end": Removed("1.0", "look at self.trainer.sanity_checking instead"),
}

REMOVED_OF_DATA: dict[str, Removed] = {
    **_LOADERS,
    "on_save_checkpoint": Removed("1.8", "return the state from state_dict"),
    "on_load_checkpoint": Removed("1.8", "take the state in load_state_dict"),
}
