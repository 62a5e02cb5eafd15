"""Lightning's steps and metrics as those of a session: a step is an optimizer step."""

from argparse import Namespace
from collections.abc import Mapping
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

from .session import Session


class SessionLogger(Logger, Callback):
    """A logger and a callback in one object, which a Trainer needs as both.

    With automatic and manual optimisation and any accumulation, a step begins with the first
    batch that goes into it and ends when `global_step` has grown.
    """

    def __init__(self) -> None:
        super().__init__()
        self.session: Session | None = None
        self._trainer: Trainer | None = None
        self._last_step = 0

    @property
    def name(self) -> str:
        """What Lightning calls this logger."""
        return "journal"

    @property
    def version(self) -> str:
        """Nothing: a run directory is one run."""
        return ""

    @rank_zero_only
    def log_hyperparams(
        self, params: dict[str, Any] | Namespace, *args: object, **kwargs: object
    ) -> None:
        """Nothing is done with them here."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Report metrics; `step` is replaced by the optimizer steps done."""
        if self.session is None:
            return
        epoch = metrics.get("epoch", 0)
        values = {name: float(value) for name, value in metrics.items() if name != "epoch"}
        if values:
            done = self._trainer.global_step if self._trainer is not None else step
            self.session.metric(values, step=done, epoch=int(epoch))

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Count on from where the run resumed, and say how long it is to be."""
        self._trainer = trainer
        self._last_step = trainer.global_step
        if self.session is not None:
            self.session.begin_at(trainer.global_step)
            self.session.reporter.plan(
                planned_steps(trainer), trainer.max_epochs, _finite(trainer.num_training_batches)
            )

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: object, batch_idx: int
    ) -> None:
        """Begin a step, unless this batch only adds to one."""
        if self.session is not None and not self.session.is_started:
            self.session.start_step()

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: object,
        batch: object,
        batch_idx: int,
    ) -> None:
        """End the step if this batch ended one: under accumulation most do not."""
        if trainer.global_step == self._last_step:
            return
        self._last_step = trainer.global_step
        if self.session is not None and self.session.is_started:
            self.session.epoch = trainer.current_epoch
            self.session.end_step(to=trainer.global_step)


def planned_steps(trainer: Trainer) -> int | None:
    """Return the optimizer steps of the whole training; None if nobody knows."""
    return _finite(trainer.estimated_stepping_batches)


def _finite(number: float) -> int | None:
    return None if number in (float("inf"), -1) else int(number)
