"""An optimizer's step and zeroing, without what torch does around them where nobody asks for it.

`Optimizer.step` and `zero_grad` tell a profiler and a compiler of themselves and look for hooks,
for about 40 µs each in a training step. For torch's own optimizers that is left out while no
profiler watches this thread and no hook is registered; what somebody has overridden, wrapped or
replaced is called as it is.
"""

from typing import Any

import torch
from torch._C._autograd import _profiler_enabled
from torch.optim import LBFGS, Optimizer
from torch.optim.optimizer import _global_optimizer_post_hooks, _global_optimizer_pre_hooks

_AROUND_STEP = Optimizer.profile_hook_step(lambda: None).__code__
_ZERO_GRAD = Optimizer.zero_grad


class BareOptimizer:
    """See the module.

    Args:
        optimizer: Whose; what is said of it here is asked anew in each step where it may change.
    """

    def __init__(self, optimizer: Any) -> None:
        kind = type(optimizer)
        self._optimizer = optimizer
        self._is_torchs = kind.__module__.startswith("torch.optim.") and kind is not LBFGS
        is_bare = self._is_torchs and kind.step.__code__ is _AROUND_STEP
        self._step: Any = kind.step.__wrapped__ if is_bare else None
        self._has_torchs_zero_grad = kind.zero_grad is _ZERO_GRAD

    def takes_gradients(self) -> bool:
        """Return whether `step` may find the gradients there instead of calling a closure.

        It is all the same to torch's own optimizers but LBFGS, and takes less time.
        """
        optimizer = self._optimizer
        # A scheduler counts steps by a wrapper; another one may want the closure.
        is_wrapped = "step" in vars(optimizer) and not hasattr(
            optimizer.step, "_wrapped_by_lr_sched"
        )
        return (
            self._is_torchs
            and not is_wrapped
            and torch.is_grad_enabled()  # else it enables them for its closure
            and not (optimizer._optimizer_step_pre_hooks or _global_optimizer_pre_hooks)
        )

    def step(self) -> None:
        """Change the weights by the gradients that are there; no pre-hook may be registered."""
        optimizer = self._optimizer
        if (
            self._step is None
            or "step" in vars(optimizer)
            or optimizer._optimizer_step_post_hooks
            or _global_optimizer_post_hooks
            or _profiler_enabled()
        ):
            optimizer.step()
        else:
            self._step(optimizer)

    def zero_grad(self) -> None:
        """Set the gradients to None, or do what the optimizer does instead."""
        optimizer = self._optimizer
        if not self._has_torchs_zero_grad or "zero_grad" in vars(optimizer) or _profiler_enabled():
            optimizer.zero_grad()
            return
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                parameter.grad = None
