"""A lean fit as an ordinary Lightning checkpoint, and back; what Lightning leaves out is added.

The keys are Lightning's, in its order of hooks, and those of our Lightning engine: either engine
goes on from the other's files (see `exact_resume` for what is in `curitorch_unfinished`).
"""

import importlib.metadata
import pickle
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities import rank_zero_warn
from lightning.pytorch.utilities.migration.utils import migrate_checkpoint

from .. import metric_states
from ..exact_resume import KEY, SCHEMA
from ..loop_position import Moment, moment_of_plain_file, settle, was_cut
from ..model_record import CHECKPOINT_KEY, describe_model
from ..plain import on_device, plain
from ..rank_parts import gathered, part_of
from ..refused import Refused
from ..schema import check_schema
from ..stores.place import DETAILS_KEY
from ..stores.verified_io import VerifiedCheckpointIO
from ..switches import KEY as SWITCHES
from ..switches import compare, switches
from ..unfinished_epoch import restore_stop
from .fit import Fit
from .lean_strategy import LeanStrategy
from .progress import loops_state
from .sharded_saving import read_parts


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


def read(path: Path, strategy: LeanStrategy, *, trusted: bool) -> dict[str, Any]:
    """Read a checkpoint of ours or of Lightning's.

    Raises:
        Refused: It needs more trust, or has only weights.
        UnreadableFile: It is torn or altered.
    """
    try:
        parts = read_parts(path, mesh=strategy.future_mesh, trusted=trusted)
        content = parts or VerifiedCheckpointIO().load_checkpoint(
            str(path), map_location="cpu", weights_only=not trusted
        )
    except pickle.UnpicklingError as error:
        raise Refused(
            f"'{path}' holds more than tensors and plain data: {str(error).splitlines()[0]} Pass "
            "--trusted (trusted=True) if you trust where it comes from."
        ) from error
    checkpoint, _ = migrate_checkpoint(content)
    for name in ("loops", "optimizer_states", "lr_schedulers"):
        if name not in checkpoint:
            raise Refused(
                f"'{path}' has no '{name}': it holds only weights, which no training can go on "
                "from. Load them with load_from_checkpoint, and begin anew."
            )
    return dict(checkpoint)


def restore_model(fit: Fit, checkpoint: dict[str, Any]) -> None:
    """Give module and data module their state, through their hooks."""
    module, datamodule = fit.module, fit.datamodule
    saved = checkpoint.get(KEY)
    if saved is not None:  # the training data are perhaps made before the rest is restored
        check_schema(saved, where="The checkpoint's state of the epoch", newest=SCHEMA)
        fit.exact.loaded = part_of(fit.trainer, saved)  # type: ignore[arg-type]
        fit.exact._order = saved["order"]
    fit.calls.call("on_load_checkpoint", module.on_load_checkpoint, checkpoint)
    module.load_state_dict(checkpoint["state_dict"], strict=module.strict_loading)
    if datamodule is not None and type(datamodule).__qualname__ in checkpoint:
        datamodule.load_state_dict(checkpoint[type(datamodule).__qualname__])


def restore_training(fit: Fit, checkpoint: dict[str, Any]) -> None:
    """Give optimizers, schedulers, scaler and counters their state; says what is left to do.

    Raises:
        Refused: The checkpoint is of a later epoch than the last one.
    """
    trainer: Any = fit.trainer
    if fit.precision.name in checkpoint:
        fit.precision.plugin.load_state_dict(checkpoint[fit.precision.name])
    for optimizer, state in zip(trainer.optimizers, checkpoint["optimizer_states"], strict=False):
        optimizer.load_state_dict(fit.strategy.divided(state, optimizer))
    for config, state in zip(
        trainer.lr_scheduler_configs, checkpoint["lr_schedulers"], strict=False
    ):
        config.scheduler.load_state_dict(state)
    if fit.stopping is not None:
        state = checkpoint["callbacks"].get(fit.stopping.state_key)
        if state is not None:
            fit.stopping.load_state_dict(state)
    if trainer.is_global_zero:
        compare(checkpoint.get(SWITCHES), switches(fit.strategy.root_device))
    saved, loops = checkpoint.get(KEY), checkpoint["loops"]["fit_loop"]
    when, cut = moment_of_plain_file(loops), True
    if saved is not None:
        when, cut = Moment(saved["moment"]), saved["cut"]
        if fit.exact.loaded is not None:
            restore_stop(trainer, fit.exact.loaded, at_rest=when is Moment.REST)
    still = trainer.should_stop or 0 <= trainer.max_steps <= checkpoint["global_step"]
    fit.left = settle(loops, when, cut=cut and not still)
    if fit.left is Moment.STEP:
        rank_zero_warn(
            "The checkpoint was saved in the middle of a batch, by an error perhaps: its weights "
            "may be those before or behind that step, and the resume is not exact."
        )
    fit.progress.load(loops, steps=checkpoint["global_step"])
    fit.logged.batches_that_stepped = fit.progress.stepped_batches
    if 0 <= trainer.max_epochs < fit.progress.epochs_completed:
        raise Refused(
            f"The checkpoint has {fit.progress.epochs_completed} whole epochs, and max_epochs is "
            f"{trainer.max_epochs}. Give at least as many."
        )


def restore_epoch(fit: Fit) -> None:
    """Put back what was known of the epoch under way, behind the hooks that begin a fit."""
    saved, module, trainer = fit.exact.loaded, fit.module, fit.trainer
    if saved is None:
        return
    batches = fit.progress.place()[1]
    if saved["reloaded"][1] != float("-inf"):
        fit.data.set_up_validation()
        fit.data.made_at[1] = saved["reloaded"][1]
    fit.logged.load_state_dict(
        {
            "batches_that_stepped": fit.progress.stepped_batches,
            "first": None if batches == 0 else batches == 1,
            "last_hook": None,
            **saved,
        }
    )
    metric_states.restore(module, saved["metrics"])
    if saved["judged"] is not None:
        plateaus = [c for c in trainer.lr_scheduler_configs if c.reduce_on_plateau]
        for config, state in zip(plateaus, saved["judged"]["plateaus"], strict=False):
            config.scheduler.load_state_dict(state)
        for optimizer, rates in zip(trainer.optimizers, saved["judged"]["rates"], strict=False):
            for group, rate in zip(optimizer.param_groups, rates, strict=False):
                group["lr"] = rate
        if fit.stopping is not None and saved["judged"]["stopping"]:
            fit.stopping.load_state_dict(saved["judged"]["stopping"][0])
    parameters = dict(module.named_parameters())
    for name, gradient in saved.get("gradients", {}).items():
        parameters[name].grad = on_device(gradient, parameters[name].device)
