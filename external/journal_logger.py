"""A Lightning logger, and callback, that writes steps and metrics to the journal of a run."""

from argparse import Namespace
from collections.abc import Mapping
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

from .journal import Journal


class JournalLogger(Logger, Callback):
    """Writes one `step` event per optimizer step and one `metric` event per logging call.

    Give the same instance to `Trainer(logger=…)` and `Trainer(callbacks=[…])`. A metric's step is
    the number of optimizer steps done when it was logged, for training and validation alike.

    Args:
        journal: Where rank 0 writes; None on the other ranks.
    """

    def __init__(self, journal: Journal | None) -> None:
        super().__init__()
        self._journal = journal
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
        """Write the hyperparameters as one event; what is not plain data as its text."""
        if self._journal is not None:
            values = vars(params) if isinstance(params, Namespace) else dict(params)
            plain = (str, int, float, bool, type(None))
            self._journal.write(
                "hyperparameters",
                values={k: v if isinstance(v, plain) else str(v) for k, v in values.items()},
            )

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Write metrics as one event; `step` is replaced by the optimizer steps done."""
        if self._journal is None:
            return
        epoch = metrics.get("epoch", 0)
        values = {name: float(value) for name, value in metrics.items() if name != "epoch"}
        if values:
            done = self._trainer.global_step if self._trainer is not None else step
            self._journal.write("metric", step=done, epoch=int(epoch), metrics=values)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Remember where the run resumed."""
        self._trainer = trainer
        self._last_step = trainer.global_step
        if self._journal is not None:
            self._journal.write(
                "plan",
                steps=_planned_steps(trainer),
                epochs=trainer.max_epochs,
                batches_per_epoch=_finite(trainer.num_training_batches),
            )

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: object,
        batch: object,
        batch_idx: int,
    ) -> None:
        """Write the step if this batch ended one: under accumulation most do not."""
        if trainer.global_step == self._last_step:
            return
        self._last_step = trainer.global_step
        if self._journal is not None:
            self._journal.write("step", step=trainer.global_step, epoch=trainer.current_epoch)


def _planned_steps(trainer: Trainer) -> int | None:
    steps = trainer.estimated_stepping_batches
    return _finite(steps)


def _finite(number: float) -> int | None:
    return None if number in (float("inf"), -1) else int(number)
