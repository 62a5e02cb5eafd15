"""Precision as Lightning's Trainer applies it, on Fabric's plugins.

Fabric enters no autocast around `training_step` on a single device, and its autocast keeps casted
weights, whose gradients then add up otherwise; the Trainer's does not. Here both are as the
Trainer's, whatever the number of processes.
"""

import contextlib
from collections.abc import Callable
from typing import Any

import torch
from lightning.fabric.plugins import Precision
from lightning.pytorch.utilities import GradClipAlgorithmType
from torch.optim import LBFGS, Optimizer

_CONVERTING = (
    "16-true",
    "bf16-true",
    "64-true",
    "transformer-engine",
    "transformer-engine-float16",
)


class LeanPrecision:
    """What `trainer.precision_plugin` is to a module.

    Args:
        plugin: Fabric's, which the fit was configured with.

    Attributes:
        context: Returns the context of a training or validation step; None if there is none.
        scaler: The gradient scaler of float16, or None.
    """

    def __init__(self, plugin: Precision) -> None:
        self.plugin = plugin
        self.precision = str(plugin.precision)
        self.scaler: Any = getattr(plugin, "scaler", None)
        self.converts = self.precision in _CONVERTING
        self.context = self._context()

    def _context(self) -> Callable[[], contextlib.AbstractContextManager[Any]] | None:
        if self.precision == "32-true":
            return None
        if self.precision in ("16-mixed", "bf16-mixed"):
            dtype = torch.bfloat16 if self.precision == "bf16-mixed" else torch.float16
            device = str(getattr(self.plugin, "device", "cpu"))
            # Entered again for every step; never within itself.
            autocast = torch.autocast(device, dtype=dtype, cache_enabled=False)
            return lambda: autocast
        return self.plugin.forward_context

    @property
    def name(self) -> str:
        """Under which Lightning keeps this plugin's state in a checkpoint."""
        return type(self.plugin).__qualname__

    def step(
        self,
        optimizer: Any,
        closure: Callable[[], Any],
        before: Callable[[Any], None],
        *,
        skips: bool,
        **options: Any,
    ) -> Any:
        """Run the closure, then `before`, then change the weights.

        Args:
            optimizer: One of the user's.
            closure: Computes the gradients.
            before: Called with the optimizer between the two, its gradients unscaled.
            skips: Whether a closure that returns None means that there are no gradients.
            options: Of the optimizer's `step`.

        Raises:
            TypeError: LBFGS with a scaler, which cannot evaluate twice.
        """
        scaler = self.scaler
        if scaler is None:

            def whole() -> Any:
                result = closure()
                before(optimizer)
                return result

            return optimizer.step(closure=whole, **options)
        if isinstance(optimizer, LBFGS):
            raise TypeError("LBFGS evaluates several times a step, which 16-mixed cannot: use 32.")
        result = closure()
        is_skipped = result is None and skips
        if not is_skipped and not getattr(optimizer, "_step_supports_amp_scaling", False):
            scaler.unscale_(optimizer)
        before(optimizer)
        if is_skipped:
            return result
        output = scaler.step(optimizer, **options)  # leaves it out if gradients are not finite
        scaler.update()
        return output

    def clip_gradients(
        self,
        optimizer: Optimizer,
        clip_val: float | None = 0.0,
        gradient_clip_algorithm: Any = GradClipAlgorithmType.NORM,
    ) -> None:
        """Clip the gradients of an optimizer's parameters, by value or by their norm.

        Raises:
            RuntimeError: The optimizer unscales in its own step, where it is too late.
        """
        if not clip_val or clip_val <= 0:
            return
        if self.scaler is not None and getattr(optimizer, "_step_supports_amp_scaling", False):
            raise RuntimeError(
                f"{type(optimizer).__qualname__} unscales gradients inside its step, so that they "
                "cannot be clipped before. Leave out fused=True, or clipping."
            )
        parameters = [each for group in optimizer.param_groups for each in group["params"]]
        if str(getattr(gradient_clip_algorithm, "value", gradient_clip_algorithm)) == "value":
            torch.nn.utils.clip_grad_value_(parameters, clip_value=clip_val)
        else:
            torch.nn.utils.clip_grad_norm_(parameters, clip_val)
