"""A lean fit goes on from a checkpoint: of its own, of our Lightning engine's or of Lightning's.

In Lightning's order: the model before its optimizers are made, the rest of the training behind
`on_fit_start`, what was known of the epoch under way behind `on_train_start`.
"""

import pickle
import tempfile
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities import rank_zero_warn
from lightning.pytorch.utilities.migration.utils import migrate_checkpoint

from ..exact import metric_states
from ..exact.exact_resume import KEY, SCHEMA
from ..exact.loop_position import Moment, moment_of_plain_file, settle
from ..exact.plain import on_device
from ..exact.rank_parts import part_of
from ..exact.switches import KEY as SWITCHES
from ..exact.switches import compare, switches
from ..exact.unfinished_epoch import restore_stop
from ..refused import Refused
from ..schema import check_schema
from ..state_files import newest_state
from ..stores.store import Store
from ..stores.verified_io import VerifiedCheckpointIO
from .fit import Fit
from .lean_strategy import LeanStrategy
from .sharded_saving import read_parts


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


def asked(
    ckpt_path: str | Path | None, store: Store | None, strategy: LeanStrategy, *, trusted: bool
) -> dict[str, Any] | None:
    """Read the checkpoint that `fit(ckpt_path=…)` asks for; None if there is none.

    Raises:
        Refused: "last" without a store; or as by `read`.
    """
    if ckpt_path is None:
        return None
    if ckpt_path != "last":
        return read(Path(ckpt_path), strategy, trusted=trusted)
    if store is None:
        raise Refused(
            "ckpt_path='last' needs a store to look in. Give LeanTrainer(store=…), or a path."
        )
    with tempfile.TemporaryDirectory(prefix="curitorch-resume-") as folder:
        found = newest_state(store, Path(folder))
        return None if found is None else read(found[1], strategy, trusted=trusted)


def restore_model(fit: Fit, checkpoint: dict[str, Any]) -> None:
    """Give module and data module their state, through their hooks."""
    module, datamodule = fit.module, fit.datamodule
    saved = checkpoint.get(KEY)
    if saved is not None:  # the training data are perhaps made before the rest is restored
        check_schema(saved, where="The checkpoint's state of the epoch", newest=SCHEMA)
        fit.exact.loaded = _part(fit, saved)
        fit.exact._order = saved["order"]
    fit.calls.call("on_load_checkpoint", module.on_load_checkpoint, checkpoint)
    module.load_state_dict(checkpoint["state_dict"], strict=module.strict_loading)
    if datamodule is not None and type(datamodule).__qualname__ in checkpoint:
        datamodule.load_state_dict(checkpoint[type(datamodule).__qualname__])


def _part(fit: Fit, saved: dict[str, Any]) -> dict[str, Any] | None:
    """Return what this process knew of the epoch under way.

    With exact="world" that is what any process knew, but for what torchmetrics count in training.
    """
    ranks, trainer = saved["ranks"], fit.trainer
    if fit.is_for_any_world and saved["world_size"] != trainer.world_size and ranks:
        return {**ranks[0], "metrics": {}}
    return part_of(trainer, saved)  # type: ignore[arg-type]


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
    if fit.clock is not None:
        fit.clock.begin(0.0 if saved is None else saved.get("since_validation", 0.0))
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
