"""Automatic optimization of one batch: the step, zeroing, the backward pass, the optimizer.

Everything that depends on settings or on what is overridden is decided once; see Lightning's
loops/optimization/automatic.py for the order.
"""

import contextlib
from collections.abc import Callable, Mapping
from typing import Any

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.utilities.model_helpers import is_overridden
from lightning.pytorch.utilities.signature_utils import is_param_in_hook_signature
from torch import Tensor

from .bare_optimizer import BareOptimizer
from .fit import Fit


class Automatic:
    """Optimizes batch after batch.

    Args:
        fit: Its module has one optimizer.
        stepping: Called before the weights change.
    """

    def __init__(self, fit: Fit, stepping: Callable[[], None]) -> None:
        trainer, module = fit.trainer, fit.module
        self._fit, self._calls, self._logged = fit, fit.calls, fit.logged
        self._progress = fit.progress
        self._every = int(vars(trainer)["accumulate_grad_batches"])
        self._optimizer = trainer.optimizers[0]
        self._bare = BareOptimizer(self._optimizer)
        self._strategy = fit.strategy
        self._context = fit.precision.context
        self._step = fit.strategy.training_step
        self._takes_number = takes_number(module)
        self._shows_outputs = fit.calls.has("on_train_batch_end")
        self._is_alone = fit.strategy.world_size == 1
        self._stepping = stepping
        self._clip_value = vars(trainer)["gradient_clip_val"]
        self._clip_algorithm = vars(trainer)["gradient_clip_algorithm"]
        self._clips_itself = is_overridden("configure_gradient_clipping", module) or is_overridden(
            "clip_gradients", module
        )
        self._backward = self._backward_of(fit)
        self._steps_itself = fit.calls.has("optimizer_step")
        self._has_before_zero = fit.calls.has("on_before_zero_grad")
        self._zeroes_itself = fit.calls.has("optimizer_zero_grad")
        self._has_before_step = fit.calls.has("on_before_optimizer_step")
        fit.strategy.before_step = self._before_step
        self._is_scaled = fit.precision.scaler is not None
        self._batch: Any = None
        self._number = 0
        self._outputs: Any = None
        self._has_run = False

    def _backward_of(self, fit: Fit) -> Callable[[Tensor], None]:
        """Return the shortest way of a backward pass."""
        calls, strategy = fit.calls, fit.strategy
        hooks = ("on_before_backward", "on_after_backward")
        strategy.before_backward = calls.on_before_backward if calls.has(hooks[0]) else None
        strategy.after_backward = calls.on_after_backward if calls.has(hooks[1]) else None
        if is_overridden("backward", fit.module) or fit.precision.scaler is not None:
            backward = calls.named("backward", strategy.backward)
            return lambda loss: backward(loss, self._optimizer)
        if not any(map(calls.has, hooks)):
            return torch.Tensor.backward
        on_before, on_after = (getattr(calls, name) for name in hooks)

        def between_hooks(loss: Tensor) -> None:
            on_before(loss)
            loss.backward()  # type: ignore[no-untyped-call]
            on_after()

        return between_hooks

    def run(self, batch: Any, number: int, *, accumulates: bool) -> Any:
        """Train on one batch; returns what `on_train_batch_end` gets, if that is overridden.

        Args:
            batch: On the device.
            number: In the epoch, from 0.
            accumulates: It only adds gradients to those that are there.

        Raises:
            MisconfigurationException: `training_step` returned something else than a loss, or
                `optimizer_step` did not call its closure.
        """
        self._batch, self._number = batch, number
        self._outputs = {}
        self._has_run = False
        if accumulates:
            with self._strategy.block_backward_sync():
                self._gradients()
        else:
            if self._steps_itself:
                self._calls.optimizer_step(
                    self._progress.epochs_completed,
                    number,
                    self._strategy._lightning_optimizers[0],
                    self._closure,
                )
                if not self._has_run:
                    raise MisconfigurationException(
                        "optimizer_step did not call its closure, so nothing was trained. Call "
                        "optimizer.step(closure=optimizer_closure) in it."
                    )
            elif self._is_scaled:
                self._strategy.optimizer_step(self._optimizer, self._closure)
            elif self._bare.takes_gradients():
                self._gradients()
                self._before_step(self._optimizer)
                self._bare.step()
            else:
                self._optimizer.step(closure=self._closure_and_hooks)
            self._progress.steps += 1
        self._batch = None
        return self._outputs

    def _closure_and_hooks(self) -> Tensor | None:
        """Do what the optimizer is given to do before it changes the weights."""
        loss = self._closure()
        self._before_step(self._optimizer)
        return loss

    def _closure(self) -> Tensor | None:
        """Compute the gradients inside an optimizer, which may not have enabled them."""
        with torch.enable_grad():
            loss = self._gradients()
        return None if loss is None else loss.detach()

    def _gradients(self) -> Tensor | None:
        """Compute the gradients of the batch under way; returns what they are of."""
        self._has_run = True
        loss = self._loss()
        if self._number % self._every == 0:
            self._zero()
        if loss is not None:
            self._backward(loss)
        return loss

    def _loss(self) -> Tensor | None:
        """Call `training_step`; returns the loss of the batch, its share of the window."""
        logged = self._logged
        before, logged.hook = logged.hook, "training_step"
        arguments = (self._batch, self._number) if self._takes_number else (self._batch,)
        if self._context is None:
            output = self._step(*arguments)
        else:
            with self._context():
                output = self._step(*arguments)
        logged.hook = before
        extra: Any = None
        if not isinstance(output, Tensor):
            if output is None:
                if not self._is_alone:
                    raise RuntimeError(
                        "training_step returned None, which several processes cannot skip "
                        "together. Return a loss, multiplied by 0 perhaps."
                    )
                return None
            if not isinstance(output, Mapping) or output.get("loss") is None:
                raise MisconfigurationException(
                    f"training_step returned {type(output).__name__}, expected a tensor, a "
                    "dictionary with 'loss', or None."
                )
            extra = {name: value for name, value in output.items() if name != "loss"}
            output = output["loss"]
        loss = self._share(output)
        if self._shows_outputs:
            self._outputs = {"loss": loss.detach().clone(), **(extra or {})}
        return loss

    def _share(self, loss: Tensor) -> Tensor:
        """Return the loss as its part of the window's."""
        return loss / self._every if self._every > 1 else loss

    def _zero(self) -> None:
        if self._has_before_zero:
            self._calls.on_before_zero_grad(self._optimizer)
        if self._zeroes_itself:
            epoch = self._progress.epochs_completed
            self._calls.optimizer_zero_grad(epoch, self._number, self._optimizer)
        else:
            self._bare.zero_grad()

    def _before_step(self, optimizer: Any) -> None:
        """Call the hook between the gradients and the weights, and clip."""
        self._stepping()
        if self._has_before_step:
            self._calls.on_before_optimizer_step(optimizer)
        if self._clips_itself:
            with self._named("configure_gradient_clipping"):
                self._fit.module.configure_gradient_clipping(
                    optimizer,
                    gradient_clip_val=self._clip_value,
                    gradient_clip_algorithm=self._clip_algorithm,
                )
        elif self._clip_value:
            algorithm = self._clip_algorithm or "norm"
            self._fit.precision.clip_gradients(optimizer, self._clip_value, algorithm)

    @contextlib.contextmanager
    def _named(self, hook: str) -> Any:
        before, self._logged.hook = self._logged.hook, hook
        yield
        self._logged.hook = before


def takes_number(module: Any) -> bool:
    """Return whether `training_step` wants the batch's number as well."""
    return bool(is_param_in_hook_signature(module.training_step, "batch_idx", min_args=2))
