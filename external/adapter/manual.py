"""Manual optimization of one batch: `training_step` does it all, and every step is counted."""

from collections.abc import Callable, Mapping
from typing import Any

from lightning.fabric.utilities.exceptions import MisconfigurationException
from torch import Tensor

from .automatic import takes_number
from .fit import Fit


class Manual:
    """Optimizes batch after batch.

    Args:
        fit: Its module has `automatic_optimization = False`.
        stepping: Called before weights change.
    """

    def __init__(self, fit: Fit, stepping: Callable[[], None]) -> None:
        self._logged, self._progress = fit.logged, fit.progress
        self._context = fit.precision.context
        self._step = fit.strategy.training_step
        self._takes_number = takes_number(fit.module)
        calls, strategy = fit.calls, fit.strategy
        has_before, has_after = calls.has("on_before_backward"), calls.has("on_after_backward")
        strategy.before_backward = calls.on_before_backward if has_before else None
        strategy.after_backward = calls.on_after_backward if has_after else None

        def before_step(optimizer: Any) -> None:
            stepping()
            calls.on_before_optimizer_step(optimizer)

        strategy.before_step = before_step
        for optimizer in strategy._lightning_optimizers:
            optimizer._on_after_step = self._count

    def _count(self) -> None:
        self._progress.steps += 1

    def run(self, batch: Any, number: int, *, accumulates: bool = False) -> dict[str, Any]:
        """Train on one batch; returns what `on_train_batch_end` gets.

        Raises:
            MisconfigurationException: `training_step` returned something else than a tensor.
        """
        logged = self._logged
        before, logged.hook = logged.hook, "training_step"
        arguments = (batch, number) if self._takes_number else (batch,)
        if self._context is None:
            output = self._step(*arguments)
        else:
            with self._context():
                output = self._step(*arguments)
        logged.hook = before
        if output is None:
            return {}
        if isinstance(output, Tensor):
            return {"loss": output.detach()}
        if not isinstance(output, Mapping):
            raise MisconfigurationException(
                f"training_step returned {type(output).__name__}, expected a tensor, a dictionary "
                "or nothing, as optimization is manual."
            )
        outputs = dict(output)
        if "loss" in outputs:
            outputs["loss"] = outputs["loss"].detach()
        return outputs
