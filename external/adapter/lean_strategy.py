"""How a module's passes reach the processes: what `trainer.strategy` is on the lean loop.

Everything that computes a gradient goes through the strategy's wrapper, for DDP synchronises only
what went through its `forward`: calling the module's own `training_step` would train each process
by itself, silently.
"""

import contextlib
from collections.abc import Callable
from typing import Any

import torch
from lightning.fabric import Fabric
from lightning.fabric.strategies.model_parallel import ModelParallelStrategy
from lightning.pytorch import LightningModule
from torch.nn.parallel import DistributedDataParallel

from ..refused import Refused
from .precision import LeanPrecision

_IGNORED = "_ddp_params_and_buffers_to_ignore"


class Passes(torch.nn.Module):
    """Calls any method of `module` as a forward pass, which wrappers take part in."""

    def __init__(self, module: LightningModule) -> None:
        super().__init__()
        self.module = module
        self.is_manual = not module.automatic_optimization
        self.wrapper: DistributedDataParallel | None = None
        ignored = getattr(module, _IGNORED, None)
        if ignored:
            setattr(self, _IGNORED, [f"module.{name}" for name in ignored])

    def forward(self, method: str, *arguments: Any) -> Any:
        """Return what the method returns."""
        result = getattr(self.module, method)(*arguments)
        if self.is_manual and self.wrapper is not None and method == "training_step":
            # It has had its backward passes: the wrapper shall prepare none.
            self.wrapper.require_backward_grad_sync = False
        return result


class LeanStrategy:
    """The strategy of one fit.

    Args:
        fabric: Launched.
        module: What is trained, on its device.
        precision: Of the fit.

    Attributes:
        wrapped: What the strategy made of the module.
        training_step: Calls the module's, through the wrapper.
    """

    def __init__(self, fabric: Fabric, module: LightningModule, precision: LeanPrecision) -> None:
        self.fabric = fabric
        self.inner = fabric.strategy
        self.lightning_module = module
        self.precision_plugin = precision
        self.root_device = self.inner.root_device
        self.wrapped: torch.nn.Module = module
        self.training_step: Callable[..., Any] = module.training_step
        self.ddp: DistributedDataParallel | None = None
        self.before_backward: Callable[[torch.Tensor], Any] | None = None
        self.after_backward: Callable[[], Any] | None = None
        self.before_step: Callable[[Any], None] = lambda optimizer: None
        self._lightning_optimizers: list[Any] = []
        self.mesh: Any = None  # of the processes that share the tensors, once they do

    def wrap(self) -> None:
        """Let the strategy wrap the module, which is complete now; `training_step` goes through."""
        module = self.lightning_module
        if self.fabric.world_size == 1:
            return
        if not any(parameter.requires_grad for parameter in module.parameters()):
            return  # DDP refuses a module with nothing to synchronise
        passes = Passes(module)
        if isinstance(self.inner, ModelParallelStrategy):
            if passes.is_manual:
                raise Refused(
                    f"{type(module).__qualname__}.automatic_optimization is False, and "
                    "strategy='fsdp2' gathers parameters around whole steps. Use automatic "
                    "optimization, or strategy='ddp'."
                )
            self.mesh = self.future_mesh
        wrapped = self.inner.setup_module(passes)
        self.wrapped = wrapped
        if isinstance(wrapped, DistributedDataParallel):
            self.ddp = wrapped
            if passes.is_manual:
                object.__setattr__(passes, "wrapper", wrapped)  # not as a submodule of itself
                self.training_step = self._manual_step
                return
        self.training_step = lambda *arguments: wrapped("training_step", *arguments)

    @property
    def future_mesh(self) -> Any:
        """What `mesh` becomes by `wrap`; None if tensors stay whole."""
        if self.fabric.world_size > 1 and isinstance(self.inner, ModelParallelStrategy):
            return self.inner.device_mesh["data_parallel"]
        return None

    def divided(self, state: dict[str, Any], optimizer: torch.optim.Optimizer) -> dict[str, Any]:
        """Return an optimizer's state_dict as its parameters lie in the processes."""
        if self.mesh is None:
            return state
        from .sharded import spread_optimizer

        return spread_optimizer(state, optimizer)

    def step_of(self, name: str) -> Callable[..., Any]:
        """Return a step of the module, such as validation_step, as it goes through the wrapper."""
        if self.wrapped is self.lightning_module:
            return getattr(self.lightning_module, name)  # type: ignore[no-any-return]
        return lambda *arguments: self.wrapped(name, *arguments)

    def _manual_step(self, *arguments: Any) -> Any:
        try:
            return self.wrapped("training_step", *arguments)
        finally:
            if self.ddp is not None:
                self.ddp.require_backward_grad_sync = True

    def backward(self, loss: torch.Tensor, optimizer: Any, *arguments: Any, **options: Any) -> None:
        """Scale the loss, call the hooks around, and the module's `backward`."""
        module = self.lightning_module
        if self.ddp is not None and not module.automatic_optimization:
            _prepare_for_backward(self.ddp, loss)
        if self.precision_plugin.scaler is not None:
            loss = self.precision_plugin.scaler.scale(loss)
        if self.before_backward is not None:
            self.before_backward(loss)
        module.backward(loss, *arguments, **options)
        if self.after_backward is not None:
            self.after_backward()

    def optimizer_step(
        self, optimizer: Any, closure: Callable[[], Any], model: Any = None, **options: Any
    ) -> Any:
        """Take one step, with the hooks before it; `LightningOptimizer.step` comes here."""
        skips = self.lightning_module.automatic_optimization
        return self.precision_plugin.step(
            optimizer, closure, self.before_step, skips=skips, **options
        )

    def block_backward_sync(self) -> contextlib.AbstractContextManager[Any]:
        """Leave out the synchronisation of gradients within."""
        return contextlib.nullcontext() if self.ddp is None else self.ddp.no_sync()

    no_backward_sync = block_backward_sync

    def all_gather(self, tensor: Any, group: Any = None, sync_grads: bool = False) -> Any:
        """Return the tensors of all ranks, stacked; one rank's as it is."""
        if self.fabric.world_size == 1:
            return tensor
        return self.inner.all_gather(tensor, group=group, sync_grads=sync_grads)

    def reduce(self, tensor: Any, group: Any = None, reduce_op: Any = "mean") -> Any:
        """Return the mean or sum over all ranks."""
        return self.inner.all_reduce(tensor, group=group, reduce_op=reduce_op)

    def barrier(self, name: str | None = None) -> None:
        """Wait for all ranks."""
        self.inner.barrier(name)

    def broadcast(self, value: Any, src: int = 0) -> Any:
        """Return rank `src`'s value on every rank."""
        return self.inner.broadcast(value, src)

    def reduce_boolean_decision(self, decision: bool, all: bool = True) -> bool:
        """Return whether all ranks, or any, decided so."""
        return bool(self.inner.reduce_boolean_decision(decision, all))

    @property
    def world_size(self) -> int:
        """How many processes take part."""
        return int(self.fabric.world_size)

    @property
    def global_rank(self) -> int:
        """This process."""
        return int(self.fabric.global_rank)

    @property
    def local_rank(self) -> int:
        """This process among those of its machine."""
        return int(self.fabric.local_rank)

    @property
    def is_global_zero(self) -> bool:
        """Whether this is the process that writes."""
        return bool(self.fabric.is_global_zero)


def _prepare_for_backward(ddp: DistributedDataParallel, loss: torch.Tensor) -> None:
    """Arm DDP's reducer for a backward pass in the middle of a step, as Lightning does."""
    if not (torch.is_grad_enabled() and ddp.require_backward_grad_sync):
        ddp.require_forward_param_sync = False
        return
    ddp.require_forward_param_sync = True
    looks = ddp.find_unused_parameters and not ddp.static_graph
    ddp.reducer._rebuild_buckets()
    ddp.reducer.prepare_for_backward([loss] if looks else [])
