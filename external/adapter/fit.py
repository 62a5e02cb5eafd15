"""One fit: what belongs together while a module is trained on the lean loop."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lightning.pytorch import LightningDataModule, LightningModule

from ..curifactory_logger import CurifactoryLogger
from ..exact.exact_resume import ExactResume
from ..exact.loop_position import Moment
from ..exact.randomness import derive_seed, seed_generators
from .bar import Bar
from .fit_data import FitData
from .hook_calls import HookCalls
from .lean_strategy import LeanStrategy
from .logged import Logged, for_loggers
from .precision import LeanPrecision
from .progress import Progress
from .schedulers import Schedulers
from .stand_in import StandIn
from .transfer import Transfer
from .validation_clock import ValidationClock


@dataclass
class Fit:
    """See the module; `LeanTrainer.fit` puts it together.

    Attributes:
        seed: Of all randomness.
        exact: Has what the checkpoint says of the order of samples.
        left: What the checkpoint left to do.
        is_resumed: Whether there is a checkpoint.
        stopping: Lightning's EarlyStopping, or None.
        is_for_any_world: exact="world": nothing may depend on the number of processes.
        bar: Shows where the fit is, on rank 0; None: nothing is shown.
        clock: Says when a validation is due, if `val_check_interval` is a time.
        reporter: Writes steps and metrics to the journal; on every rank, or None on every rank.
    """

    module: LightningModule
    datamodule: LightningDataModule | None
    trainer: StandIn
    progress: Progress
    logged: Logged
    calls: HookCalls
    strategy: LeanStrategy
    precision: LeanPrecision
    data: FitData
    transfer: Transfer
    reporter: CurifactoryLogger | None
    exact: ExactResume
    seed: int
    schedulers: Schedulers | None = None
    left: Moment = Moment.REST
    is_resumed: bool = False
    stopping: Any = None
    is_for_any_world: bool = False
    bar: Bar | None = None
    clock: ValidationClock | None = None

    @property
    def can_stop_early(self) -> bool:
        """Whether the least numbers of epochs and steps are reached."""
        settings = vars(self.trainer)
        return self.progress.epochs_processed >= (
            settings["min_epochs"] or 0
        ) and self.progress.steps >= (settings["min_steps"] or 0)

    def sow(self, role: str) -> None:
        """Seed the generators for the hooks of `role`, by where the training stands."""
        epochs, batches = (0, 0) if role == "start" else self.progress.place()
        rank = 0 if self.is_for_any_world else self.strategy.global_rank
        place = (epochs, batches * self.progress.share)
        seed_generators(derive_seed(self.seed, role, *place, rank))

    def log(self, values: Mapping[str, Any] | None, *, of_batch: bool = False) -> None:
        """Give what `logged` returned to the loggers, if there are any of both."""
        loggers = self.trainer.loggers
        if not values or not loggers:
            return
        plain, step = for_loggers(
            dict(values),
            step=self.logged.step,
            epoch=self.progress.epochs_completed,
            of_batch=of_batch,
        )
        epoch_loop = self.trainer.fit_loop.epoch_loop
        epoch_loop.logged_step = None if of_batch else self.logged.step
        for logger in loggers:
            logger.log_metrics(metrics=plain, step=step)
            logger.save()
        epoch_loop.logged_step = None
