"""In which hooks `self.log` may be called, and what it does there unless told otherwise.

As Lightning 2.6 has it in its `fx_validator`; a hook that is in none of the groups may not log.
"""

from lightning.fabric.utilities.exceptions import MisconfigurationException

BY_STEP = frozenset(
    (
        *("training_step", "on_train_batch_start", "on_train_batch_end"),
        *("on_before_backward", "backward", "on_after_backward"),
        *("on_before_optimizer_step", "optimizer_step"),
        *("on_before_zero_grad", "optimizer_zero_grad"),
        *("configure_gradient_clipping", "clip_gradients"),
    )
)
"""Hooks of one training batch: by default each value is shown as it is."""
BY_MEAN = frozenset(("validation_step", "on_validation_batch_start", "on_validation_batch_end"))
"""Hooks of one validation batch: by default values are gathered until the end."""
ONCE = frozenset(
    (
        *("on_train_start", "on_train_epoch_start", "on_train_epoch_end"),
        *("on_validation_start", "on_validation_epoch_start", "on_validation_epoch_end"),
    )
)
"""Hooks of a whole epoch: there are no steps to show."""


def levels(hook: str | None, on_step: bool | None, on_epoch: bool | None) -> tuple[bool, bool]:
    """Return whether a value logged in `hook` is shown at each step and at the epoch's end.

    Raises:
        MisconfigurationException: `hook` may not log, or not so.
    """
    if hook is None:
        raise MisconfigurationException(
            "You are trying to `self.log()` but it is not managed by the trainer's control flow: "
            "log from a hook or a step that the trainer calls."
        )
    if hook not in BY_STEP | BY_MEAN | ONCE:
        raise MisconfigurationException(
            f"You can't `self.log()` inside `{hook}`. Log to `self.logger.experiment`, or from a "
            "hook of a batch or an epoch."
        )
    step = hook in BY_STEP if on_step is None else on_step
    epoch = hook not in BY_STEP if on_epoch is None else on_epoch
    if hook in ONCE and (step or not epoch):
        raise MisconfigurationException(
            f"You can't `self.log(on_step={step}, on_epoch={epoch})` inside `{hook}`, where there "
            "are no steps: it must be on_step=False, on_epoch=True."
        )
    if not step and not epoch:
        raise MisconfigurationException("`self.log(on_step=False, on_epoch=False)` is not useful.")
    return step, epoch
