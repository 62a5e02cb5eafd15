"""The hooks that a module and its data module override, found once: nobody calls the others.

    calls = HookCalls(module, logged)
    calls.on_train_start()           # nothing happens if it is not overridden
    if calls.on_train_batch_end is not NOTHING: …

A hook that logs does so under its own name; within another hook, that one's name comes back.
"""

from collections.abc import Callable
from typing import Any

from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.model_helpers import is_overridden

CALLED = (
    *("on_fit_start", "on_fit_end", "on_train_start", "on_train_end"),
    *("on_train_epoch_start", "on_train_epoch_end"),
    *("on_train_batch_start", "on_train_batch_end"),
    *("on_before_zero_grad", "optimizer_zero_grad", "on_before_backward", "on_after_backward"),
    *("on_before_optimizer_step", "configure_gradient_clipping", "clip_gradients"),
    *("optimizer_step", "lr_scheduler_step"),
    *("on_validation_model_zero_grad", "on_validation_model_eval", "on_validation_model_train"),
    *("on_validation_start", "on_validation_end"),
    *("on_validation_epoch_start", "on_validation_epoch_end"),
    *("on_validation_batch_start", "on_validation_batch_end"),
)
"""What the loop calls besides the steps, the data hooks and those of a checkpoint."""


def NOTHING(*arguments: Any, **options: Any) -> None:  # noqa: N802 - a constant
    """Stand where a hook is not overridden."""


class HookCalls:
    """An attribute for each name of `CALLED`: the module's hook, or `NOTHING`.

    Args:
        module: What is trained.
        logged: Its `hook` says under which name values are logged.
    """

    on_train_batch_start: Callable[..., Any]

    def __init__(self, module: LightningModule, logged: Any) -> None:
        self._logged = logged
        for name in CALLED:
            found = getattr(module, name) if is_overridden(name, module) else None
            setattr(self, name, NOTHING if found is None else self.named(name, found))

    def has(self, name: str) -> bool:
        """Return whether the module overrides it."""
        return getattr(self, name) is not NOTHING

    def call(self, name: str, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call `function` as a hook of that name."""
        return self.named(name, function)(*arguments)

    def named(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return `function` as a hook of that name, for what is logged in it."""
        logged = self._logged

        def call(*arguments: Any) -> Any:
            before, logged.hook = logged.hook, name
            result = function(*arguments)
            logged.hook = before
            return result

        return call

    def __getattr__(self, name: str) -> Callable[..., Any]:
        raise AttributeError(f"The lean loop calls no hook named {name!r}.")
