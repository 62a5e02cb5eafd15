"""A Lightning logger whose log is a run directory's journal, in any Trainer.

    trainer = Trainer(logger=CurifactoryLogger("runs/a"))

Metrics, steps, hyperparameters, the model's summary and everything that is saved become lines of
`runs/a/journal.jsonl` (see `journal`); `TrainingRun("runs/a")` reads them while training goes on.
"""

import os
import time
from argparse import Namespace
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint, ModelCheckpoint
from lightning.pytorch.trainer.states import TrainerStatus
from lightning.pytorch.utilities import rank_zero_only
from torch.nn import Module

from .journal import Journal
from .logger_journal import LoggerJournal
from .model_summary import summarize
from .plain_settings import plain_settings
from .saved_files import kept, saved
from .sdk.environment import place
from .sdk.lightning_logger import SessionLogger
from .sdk.values import plain_metrics


class CurifactoryLogger(SessionLogger):
    """Writes what a Trainer does into a journal; every rank may call it, rank 0 writes.

    Nothing of it ends or holds up a training: what a full disk has no room for is left out and
    counted, with one warning. A metric's step is the number of optimizer steps done when it was
    logged, for training and validation alike; its epoch and its time stand beside it. Another
    `fit`, in this process or a later one, is another attempt in the same journal: what earlier
    ones did after the step that it goes on from no longer counts.

    Args:
        run_dir: The run directory, made with the first line. Without one, that of the stage that
            launched this process.
        journal: An open journal in which somebody else began this attempt, and which they close.

    Raises:
        ValueError: There is no run directory, and no stage launched this process.
    """

    def __init__(
        self, run_dir: str | os.PathLike[str] | None = None, *, journal: Journal | None = None
    ) -> None:
        super().__init__()
        if run_dir is None and journal is not None:
            run_dir = journal.path.parent
        run = place().run if run_dir is None else Path(run_dir)
        if run is None:
            raise ValueError(
                "CurifactoryLogger() has no run directory, and no stage launched this process. "
                'Say where the journal goes: CurifactoryLogger("runs/a").'
            )
        self.run = run.absolute()
        self._journal = LoggerJournal(self.run, is_stages=run_dir is None)
        self._saved: tuple[str, int] | None = None
        self._scores: dict[str, Any] = {}
        if journal is not None:
            self.join(journal)

    @classmethod
    def of(
        cls, run_dir: Path, journal: Journal | None, loggers: Iterable[object]
    ) -> "CurifactoryLogger":
        """Return the one of `loggers` that is of this run, or a new one, joined to `journal`.

        Args:
            run_dir: The run directory.
            journal: Open on rank 0, None elsewhere.
            loggers: Those that a user gave.
        """
        run = run_dir.absolute()
        given = (each for each in loggers if isinstance(each, cls) and each.run == run)
        logger = next(given, None) or cls(run)
        if journal is not None:
            logger.join(journal)
        return logger

    def join(self, journal: Journal) -> None:
        """Write to `journal` from here on, in which somebody else began this attempt."""
        self._journal.join(journal)

    @property
    def save_dir(self) -> str:
        """The run directory: below it, `ModelCheckpoint` saves in `journal/checkpoints`."""
        return str(self.run)

    @property
    def lost(self) -> int:
        """How many lines found no room so far."""
        return self._journal.lost

    @rank_zero_only
    def log_hyperparams(
        self, params: dict[str, Any] | Namespace, *args: object, **kwargs: object
    ) -> None:
        """Write the hyperparameters as one event; what is not plain data as its text."""
        values = vars(params) if isinstance(params, Namespace) else dict(params)
        self._journal.write_once("hyperparameters", values=plain_settings(values))

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Write metrics; a name may be anything, `val/loss` too.

        In a Trainer that runs, `step` is replaced by the optimizer steps done, and one that the
        user chose (`self.log("step", …)`) becomes a metric `step`. Elsewhere it is what is given.
        """
        values, trainer = plain_metrics(metrics), self._trainer
        epoch = values.get("epoch")
        if trainer is not None and trainer.state.status == TrainerStatus.RUNNING:
            if self._has_other_reporter(trainer):
                return
            done = trainer.global_step
            if step not in (None, done, trainer.fit_loop.epoch_loop._batches_that_stepped):
                values["step"] = step
            step = done
            if epoch == trainer.current_epoch:
                del values["epoch"]  # Lightning added it
            epoch = trainer.current_epoch
        elif isinstance(epoch, int | float) and epoch == int(epoch):
            epoch = int(values.pop("epoch"))
        else:
            epoch = None
        self._journal.begin_attempt(0, only_first=True)
        if values and self._journal.session is not None:
            self._journal.session.metric(values, step=step, epoch=epoch)

    def log_graph(self, model: Module, input_array: object = None) -> None:
        """Write what the model is made of; Lightning calls it on every rank when it begins."""
        trainer = getattr(model, "_trainer", None)
        if isinstance(trainer, Trainer):
            self._attach(trainer)
        summary = summarize(model)  # on every rank: an example's forward may wait for the others
        if _is_rank_zero():
            self._journal.write_once("model", **summary)

    @rank_zero_only
    def after_save_checkpoint(self, checkpoint_callback: ModelCheckpoint) -> None:
        """Write what a `ModelCheckpoint` keeps now, and what it saved if that is not known yet."""
        path = str(checkpoint_callback._last_checkpoint_saved)
        step = checkpoint_callback._last_global_step_saved
        if path and self._saved != (path, step):
            self._journal.write("checkpoint", step=step, epoch=None, **saved(path, self.run))
        self._journal.write("kept", step=step, **kept(checkpoint_callback, self.run, self._scores))

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Write how the Trainer ended, and wait a moment until everything is on the disk."""
        journal = self._journal.open()
        if self._journal.is_own:
            journal.write("end", status=status)
        journal.fsync()

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """As a callback as well: be a logger, and see what is saved."""
        self._attach(trainer)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin an attempt where the Trainer goes on, and say how long it is to be."""
        if _is_rank_zero():
            self._journal.begin_attempt(trainer.global_step, world_size=trainer.world_size)
            self.session = None if self._journal.is_scripts else self._journal.session
            self._tell_periodic_checkpoints(trainer)
        super().on_train_start(trainer, pl_module)

    def __getstate__(self) -> dict[str, Any]:
        """In another process (`strategy="ddp_spawn"`) the session is another."""
        return {**self.__dict__, "session": None}

    def _attach(self, trainer: Trainer) -> None:
        """Become a callback of the Trainer, which counts steps, and see every file it saves."""
        self._trainer = trainer
        if self not in trainer.loggers:
            trainer.loggers = [*trainer.loggers, self]
        callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
        if self not in callbacks:
            savers = (at for at, each in enumerate(callbacks) if isinstance(each, Checkpoint))
            callbacks.insert(next(savers, len(callbacks)), self)  # those stay the last ones
        save = trainer.save_checkpoint
        if not _is_rank_zero() or getattr(save, "curitorch_logger", None) is self:
            return

        def save_checkpoint(filepath: Any, *args: Any, **kwargs: Any) -> None:
            began = time.monotonic()
            save(filepath, *args, **kwargs)
            step, seconds = trainer.global_step, round(time.monotonic() - began, 6)
            self._saved = (str(filepath), step)
            details = {**saved(filepath, self.run), "seconds": seconds}
            self._journal.write("checkpoint", step=step, epoch=trainer.current_epoch, **details)
            self._journal.open().fsync()  # a save by hand may be the last thing that is done

        save_checkpoint.curitorch_logger = self  # type: ignore[attr-defined]
        trainer.save_checkpoint = save_checkpoint  # type: ignore[method-assign]

    def _tell_periodic_checkpoints(self, trainer: Trainer) -> None:
        """Have the journal told what a `PeriodicCheckpoint` without one saves."""
        from .periodic_checkpoint import PeriodicCheckpoint

        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, PeriodicCheckpoint):
                callback.report_to(self._journal.open())

    def _has_other_reporter(self, trainer: Trainer) -> bool:
        """Return whether the SDK's callback reports metrics to the same run."""
        callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
        return self._journal.is_scripts and any(
            isinstance(each, SessionLogger) and not isinstance(each, CurifactoryLogger)
            for each in callbacks
        )


def _is_rank_zero() -> bool:
    return bool(getattr(rank_zero_only, "rank", 0) == 0)  # as Lightning sets it
