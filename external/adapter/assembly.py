"""Puts one lean fit together: the processes, and what belongs to the fit, before any hook."""

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from lightning.fabric import Fabric
from lightning.pytorch import LightningDataModule, LightningModule
from lightning.pytorch.utilities.model_helpers import is_overridden

from ..curifactory_logger import CurifactoryLogger
from ..exact.exact_resume import ExactResume
from ..exact.gradient_order import keep_layout
from ..journal import Journal
from ..refused import Refused
from .fit import Fit
from .fit_data import FitData
from .hook_calls import HookCalls
from .lean_strategy import LeanStrategy
from .logged import Logged
from .precision import LeanPrecision
from .processes import processes
from .progress import Progress
from .stand_in import StandIn
from .validation_clock import ValidationClock
from .world_data import WorldData
from .world_logged import WorldLogged


def assembled(
    model: LightningModule,
    datamodule: LightningDataModule | None,
    train: Any,
    validation: Any,
    *,
    settings: dict[str, Any],
    fabric_options: dict[str, Any],
    reporter: CurifactoryLogger | None,
    loggers: list[Any],
    seed: int,
    batch_size: int | None,
    is_world: bool,
    grain: int | None,
) -> Fit:
    """Start the processes, and return what belongs to this fit.

    Args:
        model: What is trained; its trainer is the fit's from here on.
        datamodule: Its data, if that is a data module.
        train: Training loaders, if they were given.
        validation: Validation loaders, if they were given.
        settings: From `settings.checked`.
        fabric_options: Of Fabric.
        reporter: Writes the journal.
        loggers: The user's.
        seed: Of all randomness.
        batch_size: Samples per optimizer step over all processes and accumulated batches.
        is_world: Whether it is exact="world".
        grain: Samples of its grains.

    Raises:
        Refused: There are no training data, or the strategy cannot do what was asked for.
    """
    fabric = Fabric(**processes(fabric_options, is_world=is_world))
    progress = Progress()
    trainer = StandIn(settings, progress, model, datamodule)
    fabric.launch()
    precision = LeanPrecision(fabric.strategy.precision)
    strategy = LeanStrategy(fabric, model, precision)
    trainer.connect(strategy)
    keep_layout(fabric.strategy, fabric.world_size)
    progress.share = fabric.world_size if is_world else 1
    others = [each for each in loggers if each is not reporter]
    trainer.loggers = others if reporter is None else [reporter, *others]
    options = {
        "log_every_n_steps": settings["log_every_n_steps"],
        "reduce": strategy.reduce if strategy.world_size > 1 else None,
        "has_logger": bool(trainer.loggers),
    }
    if is_world:
        options |= {"world_size": strategy.world_size, "device": strategy.root_device}
    logged = (WorldLogged if is_world else Logged)(**options)
    trainer.logged = logged
    model.trainer = trainer  # type: ignore[assignment]
    logged.attach(model)
    logged.begin_fit()
    owner: Any = model
    if datamodule is not None:
        owner = datamodule
        datamodule.trainer = trainer  # type: ignore[assignment]
    exact = ExactResume()
    exact.seed = seed
    every = settings["accumulate_grad_batches"]
    kind = partial(WorldData, grain=grain) if is_world else FitData
    data = kind(
        _training(train, owner),
        _defined(validation, owner, "val_dataloader"),
        trainer=trainer,
        exact=exact,
        batch_size=None if batch_size is None else batch_size // every,
        seed=seed,
    )
    if isinstance(data, WorldData):
        logged.place = lambda: data.place(progress.ready - 1)  # type: ignore[attr-defined]
    trainer.estimate = lambda: _estimated_steps(trainer, data)
    trainer.enable_validation = (
        data.has_validation
        and is_overridden("validation_step", model)
        and settings["limit_val_batches"] > 0
    )
    seconds = settings["_val_check_time_interval"]
    return Fit(
        module=model,
        datamodule=datamodule,
        trainer=trainer,
        progress=progress,
        logged=logged,
        calls=HookCalls(model, logged),
        strategy=strategy,
        precision=precision,
        data=data,
        transfer=lambda batch, index: batch,
        reporter=reporter,
        exact=exact,
        seed=seed,
        is_for_any_world=is_world,
        clock=None if seconds is None else ValidationClock(seconds, trainer),  # type: ignore[arg-type]
    )


def reporter_of(
    run_dir: Path | None, journal: Journal | None, loggers: list[Any]
) -> CurifactoryLogger | None:
    """Return the logger whose log is the journal; None if there is no run directory."""
    if run_dir is None and journal is not None:
        run_dir = journal.path.parent
    if run_dir is None:
        return next((each for each in loggers if isinstance(each, CurifactoryLogger)), None)
    return CurifactoryLogger.of(run_dir, journal, loggers)


def _training(given: Any, owner: Any) -> Callable[[], Any]:
    found = _defined(given, owner, "train_dataloader")
    if found is None:
        raise Refused(
            f"There is no training data: {type(owner).__qualname__} has no train_dataloader. Give "
            "fit() loaders or a data module, or define the hook."
        )
    return found


def _defined(given: Any, owner: Any, name: str) -> Callable[[], Any] | None:
    if given is not None:
        return lambda: given
    return getattr(owner, name) if is_overridden(name, owner) else None


def _estimated_steps(trainer: Any, data: FitData) -> float:
    """Return how many optimizer steps the whole training has (Lightning's rule)."""
    if trainer.max_epochs == -1:
        return math.inf if trainer.max_steps == -1 else int(trainer.max_steps)
    data.set_up_train()
    batches = trainer.num_training_batches
    if math.isinf(batches):
        return int(trainer.max_steps)
    steps = math.ceil(batches / trainer.accumulate_grad_batches) * max(trainer.max_epochs, 1)
    return int(steps if trainer.max_steps == -1 else min(steps, trainer.max_steps))
