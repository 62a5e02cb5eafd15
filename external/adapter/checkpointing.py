"""A lean fit as an ordinary Lightning checkpoint; what Lightning leaves out is added.

The keys are Lightning's, in its order of hooks, and those of our Lightning engine: either engine
goes on from the other's files (see `exact_resume` for what is in `curitorch_unfinished`, and
`restoring` for the way back).
"""

import importlib.metadata
from typing import Any

from ..exact import metric_states
from ..exact.exact_resume import KEY, SCHEMA
from ..exact.loop_position import Moment, was_cut
from ..exact.plain import plain
from ..exact.rank_parts import gathered
from ..exact.switches import KEY as SWITCHES
from ..exact.switches import switches
from ..model_record import CHECKPOINT_KEY, describe_model
from ..stores.place import DETAILS_KEY
from .fit import Fit
from .progress import loops_state


def known(fit: Fit, logged: dict[str, Any], metrics: dict[str, Any]) -> dict[str, Any]:
    """Return what this process knows of the epoch under way, as a checkpoint can hold it.

    Args:
        fit: As it is now.
        logged: What was logged, from `Logged.capture`.
        metrics: What the module's metrics counted, from `MetricStates.capture`.
    """
    trainer = fit.trainer
    judged = None
    if trainer.world_size > 1:
        judged = {
            "plateaus": [
                config.scheduler.state_dict()
                for config in trainer.lr_scheduler_configs
                if config.reduce_on_plateau
            ],
            "rates": [[g["lr"] for g in each.param_groups] for each in trainer.optimizers],
            "stopping": [] if fit.stopping is None else [fit.stopping.state_dict()],
        }
    own: dict[str, Any] = plain(
        {
            "reloaded": list(fit.data.made_at),
            "should_stop": bool(trainer.should_stop),
            "can_stop": fit.can_stop_early,
            "judged": judged,
        }
    )
    if fit.clock is not None:
        own["since_validation"] = fit.clock.elapsed
    own.update(fit.logged.state_dict(logged))
    own["metrics"] = metric_states.to_plain(metrics)
    return own


def dump(
    fit: Fit,
    own: dict[str, Any],
    *,
    place: tuple[int, int],
    moment: Moment,
    arguments: dict[str, Any] | None,
    alone: bool,
) -> dict[str, Any]:
    """Return the checkpoint of the fit as it is now; all ranks call it, rank 0's is written.

    Args:
        fit: Between two optimizer steps.
        own: From `known`, now or before the validation under way.
        place: (whole epochs, batches of the next one) that a resume begins at.
        moment: What a resume has still to do there.
        arguments: The model's constructor arguments, if they are known.
        alone: After an error: no rank waits for another.
    """
    trainer, module, progress = fit.trainer, fit.module, fit.progress
    datamodule, precision = fit.datamodule, fit.precision
    loops = loops_state(
        progress,
        place,
        is_automatic=module.automatic_optimization,
        has_schedulers=bool(trainer.lr_scheduler_configs),
    )
    batches = loops["fit_loop"]["epoch_loop.batch_progress"]
    checkpoint: dict[str, Any] = {
        "epoch": trainer.current_epoch,
        "global_step": progress.steps,
        "pytorch-lightning_version": importlib.metadata.version("lightning"),
        "state_dict": module.state_dict(),
        "loops": loops,
        "callbacks": {},
        "optimizer_states": [optimizer.state_dict() for optimizer in trainer.optimizers],
        "lr_schedulers": [c.scheduler.state_dict() for c in trainer.lr_scheduler_configs],
    }
    if fit.stopping is not None:
        checkpoint["callbacks"][fit.stopping.state_key] = fit.stopping.state_dict()
    scaled = precision.plugin.state_dict()
    if scaled:
        checkpoint[precision.name] = scaled
    for each in (module, datamodule):
        if each is not None and each.hparams:
            if hasattr(each, "_hparams_name"):
                checkpoint[each.CHECKPOINT_HYPER_PARAMS_NAME] = each._hparams_name
            checkpoint[each.CHECKPOINT_HYPER_PARAMS_KEY] = dict(each.hparams)
    if datamodule is not None:
        state = datamodule.state_dict()
        if state:
            checkpoint[type(datamodule).__qualname__] = state
    _describe(fit, checkpoint, place, arguments)
    loader = trainer.train_dataloader
    if hasattr(loader, "state_at"):
        own = {**own, "data": loader.state_at(*place, over=batches["is_last_batch"])}
    checkpoint[SWITCHES] = switches(fit.strategy.root_device)
    checkpoint[KEY] = {
        "schema": SCHEMA,
        "moment": str(moment),
        "cut": was_cut(trainer),  # type: ignore[arg-type]
        "world_size": trainer.world_size,
        "order": getattr(getattr(loader, "batches", None), "order", None),
        "ranks": [own] if alone else gathered(trainer, own),  # type: ignore[arg-type]
    }
    fit.calls.call("on_save_checkpoint", module.on_save_checkpoint, checkpoint)
    return checkpoint


def _describe(
    fit: Fit,
    checkpoint: dict[str, Any],
    place: tuple[int, int],
    arguments: dict[str, Any] | None,
) -> None:
    """Add what reloads the model, and what the sidecar says."""
    trainer = fit.trainer
    checkpoint[CHECKPOINT_KEY] = describe_model(
        fit.module,
        arguments=arguments,
        step=fit.progress.steps,
        epoch=trainer.current_epoch,
        world_size=trainer.world_size,
    )
    sampler = getattr(trainer.train_dataloader, "batch_sampler", None)
    counts = getattr(sampler, "samples_before", None)
    checkpoint[DETAILS_KEY] = {
        "epoch": place[0],
        "samples": None if counts is None else counts(*place),
        "world_size": trainer.world_size,
        "metrics": {name: float(v) for name, v in fit.logged.callback_metrics.items()},
    }
