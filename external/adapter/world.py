"""exact="world": bitwise the same weights for 1, 2, 4 … processes, and any change between them.

A run is defined by its seed, its global batch and its grain, and by nothing that belongs to a
process. Each global batch is cut into the same grains (`grains`), each process computes the
gradients of a run of them, and all are added up in one fixed tree (`tree_reduction`). A hook around
a batch is called once for each global batch, `training_step` once for each grain; the number of a
batch is that of the global batch. Validation is done by every process as a whole.
"""

import os
from collections.abc import Callable
from typing import Any

import torch
from lightning.fabric.strategies.ddp import DDPStrategy
from torch import Tensor

from ..exact.randomness import derive_seed, seed_generators
from ..refused import Refused
from .automatic import Automatic
from .fit import Fit
from .grains import Grain
from .log_rules import BY_STEP
from .tree_reduction import GradientTree
from .world_metrics import WorldMetrics

_PLAIN = ("auto", "ddp")


class TreeStrategy(DDPStrategy):
    """Starts processes as DDP does, and leaves the gradients to `GradientTree`."""

    def setup_module(self, module: torch.nn.Module) -> Any:
        """Give every process the weights of rank 0."""
        for tensor in [*module.parameters(), *module.buffers()]:
            torch.distributed.broadcast(tensor.detach(), 0)
        return module


def tree_strategy(strategy: Any, processes: int | None) -> Any:
    """Return the strategy that trains in grains, before processes are started.

    The number of threads decides over bits as well: it becomes OMP_NUM_THREADS, or else 1, and
    not a share of the machine.

    Args:
        strategy: What the user chose.
        processes: All of them, if that is known.

    Raises:
        Refused: The choice divides the module, or adds up gradients in its own way.
    """
    if not is_plain(strategy):
        raise Refused(
            f"strategy is {strategy!r}, and with exact='world' the gradients are added up in a "
            "fixed tree instead. Leave strategy 'auto' or 'ddp', or use exact='rank'."
        )
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    return strategy if processes == 1 else TreeStrategy()


def is_plain(strategy: Any) -> bool:
    """Return whether it leaves the module whole, and its gradients to others."""
    return isinstance(strategy, str) and strategy in _PLAIN


class WorldAutomatic(Automatic):
    """Automatic optimization of one grain after the other, with a step after each global batch.

    Args:
        fit: Its data are `WorldData`.
        stepping: Called before the weights change.
    """

    def __init__(self, fit: Fit, stepping: Callable[[], None]) -> None:
        super().__init__(fit, stepping)
        self._is_alone = False  # nothing may depend on that
        strategy = fit.strategy
        self._tree = GradientTree(
            _trained(fit), rank=strategy.global_rank, world_size=strategy.world_size
        )
        self._buffers = _persistent_buffers(fit.module)
        self._versions = self._versions_now()
        self._metrics = WorldMetrics(fit)
        fit.logged.judge = self._metrics.judge  # type: ignore[attr-defined]
        self._grain: Grain = Grain(0, 0, 0, 0, 1.0, True, True)
        self._call_hooks_once_a_batch()

    def _call_hooks_once_a_batch(self) -> None:
        """Wrap the hooks around a batch, which are called for grains by the loop."""
        calls = self._calls
        if calls.has("on_train_batch_start"):
            start = calls.on_train_batch_start

            def on_train_batch_start(batch: Any, number: int) -> Any:
                grain = self._place()
                if not grain.is_first:
                    return None
                if start(batch, grain.batch) == -1:
                    raise Refused(
                        "on_train_batch_start returned -1, which ends an epoch in one process "
                        "only. With exact='world' return None; limit_train_batches shortens epochs."
                    )
                return None

            calls.on_train_batch_start = on_train_batch_start
        if calls.has("on_train_batch_end"):
            end = calls.on_train_batch_end

            def on_train_batch_end(outputs: Any, batch: Any, number: int) -> None:
                if self._grain.is_last:
                    end(outputs, batch, self._grain.batch)
                    self._metrics.check()

            calls.on_train_batch_end = on_train_batch_end  # type: ignore[attr-defined]

    def run(self, batch: Any, number: int, *, accumulates: bool) -> Any:
        """Train on one grain; see `Automatic`."""
        self._grain = self._place()
        if self._grain.is_first:
            self._versions = self._versions_now()
            self._metrics.remember()
        outputs = super().run(batch, self._grain.batch, accumulates=not self._grain.is_last)
        if self._grain.is_last:
            self._metrics.check()
        return outputs

    def _place(self) -> Grain:
        """Return the grain under way."""
        found: Grain = self._fit.data.grains.at(self._progress.ready - 1)  # type: ignore[attr-defined]
        return found

    def _gradients(self) -> Tensor | None:
        """Compute the gradients of the grain under way; behind the last, of the global batch."""
        if self._has_run:
            raise Refused(
                f"{type(self._optimizer).__name__} computes a step's gradients more than once, "
                "which exact='world' has no tree for. Use another optimizer, or exact='rank'."
            )
        self._has_run = True
        loss = self._loss()
        if self._grain.is_first:
            self._zero()
            self._tree.begin()
        assert loss is not None  # for nobody is alone here
        self._backward(loss)
        self._tree.take()
        if self._grain.is_last:
            self._tree.finish()
            self._check_buffers()
            self._check_monitors()
            place = (self._progress.epochs_processed, self._grain.batch)
            seed_generators(derive_seed(self._fit.seed, "optimizer", *place))
        return loss

    def _share(self, loss: Tensor) -> Tensor:
        """Return the loss as its part of the global batch's mean."""
        return loss * self._grain.weight

    def _check_buffers(self) -> None:
        """Refuse what a step leaves in the module, for each process would leave its own.

        Raises:
            Refused: A buffer that is saved has changed.
        """
        now = self._versions_now()
        for (name, owner, key), before, after in zip(
            self._buffers, self._versions, now, strict=True
        ):
            if before != after and owner._buffers.get(key) is not None:
                raise Refused(
                    f"The buffer '{name}' changed in a training step, in every process by its own "
                    "grains. Change it in on_train_batch_end from what all processes have, make it "
                    "persistent=False if it is a cache, or use exact='rank'."
                )

    def _check_monitors(self) -> None:
        """Refuse decisions at every step by what is logged in training steps.

        Processes put that together now and then only, and for validations and ends of epochs.

        Raises:
            Refused: A plateau scheduler by step looks at such a value.
        """
        fit = self._fit
        for config in fit.trainer.lr_scheduler_configs:
            if not (config.reduce_on_plateau and config.interval == "step"):
                continue
            found = fit.logged.hooks_of(str(config.monitor)) & BY_STEP
            if found:
                raise Refused(
                    f"A plateau scheduler by step looks at {config.monitor!r}, which is logged in "
                    f"{min(found)}: at a step, every process knows its own grains only. Give it "
                    "interval \"epoch\", let it look at a value of validation, or use exact='rank'."
                )

    def _versions_now(self) -> list[tuple[int, int]]:
        found = [owner._buffers.get(key) for _, owner, key in self._buffers]
        return [(id(each), 0 if each is None else each._version) for each in found]


def _trained(fit: Fit) -> list[torch.nn.Parameter]:
    """Return all parameters that may get gradients: the module's, and what else is optimized."""
    found = {id(each): each for each in fit.module.parameters()}
    for group in fit.trainer.optimizers[0].param_groups:
        found.update({id(each): each for each in group["params"]})
    return [*found.values()]


def _persistent_buffers(module: torch.nn.Module) -> list[tuple[str, torch.nn.Module, str]]:
    """Return (full name, module, name) of each buffer that a state_dict has."""
    return [
        (f"{prefix}.{name}".lstrip("."), owner, name)
        for prefix, owner in module.named_modules()
        for name in owner._buffers
        if name not in owner._non_persistent_buffers_set
    ]
