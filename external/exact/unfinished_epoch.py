"""What one process knows of the epoch under way and no file of Lightning's has.

Means that `self.log` accumulates, what torchmetrics have counted, the metrics that schedulers and
early stopping look at, gradients of an accumulation that is not over. Each rank has its own.
"""

import warnings
from collections.abc import Sequence
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import EarlyStopping

from . import logged_values, metric_states
from .metric_states import MetricStates
from .plain import on_device, plain

_SHOWN = ("_callback_metrics", "_logged_metrics", "_progress_bar_metrics")


def capture(trainer: Trainer, metrics: MetricStates) -> dict[str, Any]:
    """Return this process's state as it is now; takes some ten microseconds and metrics' copies."""
    connector, epoch_loop = trainer._logger_connector, trainer.fit_loop.epoch_loop
    val_loop = epoch_loop.val_loop
    return {
        "logged": logged_values.capture(epoch_loop._results),
        "shown": {name.strip("_"): dict(getattr(connector, name)) for name in _SHOWN},
        "metrics": metrics.capture(),
        "validation_batches": dict(val_loop._seen_batches_per_dataloader),
        "reloaded": [
            trainer.fit_loop._last_train_dl_reload_epoch,
            val_loop._last_val_dl_reload_epoch,
        ],
        "should_stop": bool(trainer.should_stop),
        "can_stop": bool(trainer.fit_loop._can_stop_early),
        "judged": _judged(trainer) if trainer.world_size > 1 else None,
    }


def _judged(trainer: Trainer) -> dict[str, Any]:
    """Return what depends on metrics that each process may have its own value of."""
    return {
        "plateaus": [c.scheduler.state_dict() for c in _plateaus(trainer)],
        "rates": [[group["lr"] for group in each.param_groups] for each in trainer.optimizers],
        "stopping": [callback.state_dict() for callback in _stopping(trainer)],
    }


def _plateaus(trainer: Trainer) -> list[Any]:
    return [config for config in trainer.lr_scheduler_configs if config.reduce_on_plateau]


def _stopping(trainer: Trainer) -> list[EarlyStopping]:
    return [c for c in trainer.callbacks if isinstance(c, EarlyStopping)]  # type: ignore[attr-defined]


def to_plain(captured: dict[str, Any], *, reset: Sequence[str] = ()) -> dict[str, Any]:
    """Return what `capture` gave as a checkpoint can hold it.

    Args:
        captured: From `capture`.
        reset: Metrics that are about to be reset, and will be after a resume.
    """
    own = ("logged", "metrics")
    saved: dict[str, Any] = plain({k: v for k, v in captured.items() if k not in own})
    saved["logged"] = logged_values.to_plain(captured["logged"])
    saved["metrics"] = metric_states.to_plain(captured["metrics"], reset=reset)
    return saved


def gradients(trainer: Trainer, batches: int) -> dict[str, torch.Tensor]:
    """Return what an open accumulation has gathered after `batches` of the epoch; else nothing.

    Several processes have a part of it each, as large as the model: those are left out, with a
    warning. The periodic checkpoint saves after whole steps and never comes to this.
    """
    module, every = trainer.lightning_module, trainer.accumulate_grad_batches
    is_last = trainer.fit_loop.epoch_loop.batch_progress.is_last_batch
    if not module.automatic_optimization or batches % every == 0 or is_last:
        return {}
    if trainer.world_size > 1:
        warnings.warn(
            f"A checkpoint is saved after {batches % every} of {every} accumulated batches, whose "
            "gradients it does not hold: a resume from it is not exact. Save after whole steps, as "
            "PeriodicCheckpoint does.",
            stacklevel=2,
        )
        return {}
    parameters = module.named_parameters()
    return {name: plain(p.grad) for name, p in parameters if p.grad is not None}


def restore_stop(trainer: Trainer, saved: dict[str, Any], *, at_rest: bool) -> None:
    """Put back whether training has to stop, before it is asked whether there is any left.

    Args:
        trainer: Its fit begins.
        saved: This process's part.
        at_rest: Nothing is left to do of what was under way. A training that was stopped early
            may then go on: otherwise its file could not be trained further.
    """
    if saved["should_stop"] and (not saved["can_stop"] or (_stopping(trainer) and not at_rest)):
        trainer.should_stop = True


def restore(trainer: Trainer, saved: dict[str, Any]) -> None:
    """Put back what else `to_plain` returned, before the first epoch or batch of a fit."""
    module, connector = trainer.lightning_module, trainer._logger_connector
    logged_values.restore(trainer.fit_loop.epoch_loop._results, saved["logged"], module)
    metric_states.restore(module, saved["metrics"])
    for name in _SHOWN:
        setattr(connector, name, on_device(saved["shown"][name.strip("_")], module.device))
    if saved["judged"] is not None:
        for config, state in zip(_plateaus(trainer), saved["judged"]["plateaus"], strict=False):
            config.scheduler.load_state_dict(state)
        for optimizer, rates in zip(trainer.optimizers, saved["judged"]["rates"], strict=False):
            for group, rate in zip(optimizer.param_groups, rates, strict=False):
                group["lr"] = rate
        for callback, state in zip(_stopping(trainer), saved["judged"]["stopping"], strict=False):
            callback.load_state_dict(state)
    parameters = dict(module.named_parameters())
    for name, gradient in saved.get("gradients", {}).items():
        parameters[name].grad = on_device(gradient, parameters[name].device)
    train, validation = saved["reloaded"]
    _restore_loaders(trainer, train, validation, saved["validation_batches"])


def _restore_loaders(
    trainer: Trainer, train: float, validation: float, batches: dict[int, int]
) -> None:
    """Put back when loaders were made, and how many validation batches were logged since."""
    val_loop = trainer.fit_loop.epoch_loop.val_loop
    trainer.fit_loop._last_train_dl_reload_epoch = train
    if validation == float("-inf"):
        return  # there are none yet
    if val_loop._combined_loader is None:  # as Lightning does as a fit begins, where it is due
        trainer.validating = True
        val_loop.setup_data()
        trainer.training = True
    val_loop._last_val_dl_reload_epoch = validation
    val_loop._seen_batches_per_dataloader.clear()
    val_loop._seen_batches_per_dataloader.update(batches)
