"""A Lightning callback that saves checkpoints by a policy and stops all ranks at one step.

It saves between two optimizer steps only: after everything that belongs to a step (validation,
scheduler, the module's own hooks) and before anything of the next. The loop state in the file is
written as "so many whole epochs and so many batches", so that a resume neither repeats nor skips
a batch, a validation or an epoch (Lightning 2.6 does at an epoch's end).
"""

import time
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from ..params.checkpoint import CheckpointParams
from .atomic import remove_leftovers, whole_file
from .checkpoint import checkpoint_path, commit_checkpoint, list_checkpoints, prune
from .journal import Journal
from .loaders import train_sampler
from .model_record import CHECKPOINT_KEY, describe_model
from .stop import StopRequest, TrainingStopped

_STOP, _SAVE, _REASONS = 0, 1, (None, "SIGTERM", "SIGINT")


class PeriodicCheckpoint(Callback):
    """Saves every n steps, seconds or epochs, whichever comes first, and when asked to stop.

    Args:
        directory: Where checkpoints go, on a file system that all ranks share.
        policy: When to save and how many to keep.
        journal: Where rank 0 writes what it saved; None on the other ranks.
        stop: The stop request of this process; its handlers are installed here.
        arguments: The model's constructor arguments, for the record that reloads it.
        clock: Seconds, for the policy's `every_n_seconds`.
    """

    def __init__(
        self,
        directory: Path,
        policy: CheckpointParams,
        *,
        journal: Journal | None,
        stop: StopRequest,
        arguments: dict[str, Any] | None = None,
        clock: Any = time.monotonic,
    ) -> None:
        self.directory = directory
        self.policy = policy
        self.stop = stop
        self._journal = journal
        self._arguments = arguments
        self._clock = clock
        self._saving = False
        self._saved_step = -1
        self._saved_at = 0.0
        self._boundary_step = 0
        self._ended = False

    # -- the boundaries between two steps -------------------------------------------------

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Take the signals before Lightning does: its SIGTERM handler waits for other ranks."""
        self.stop.listen()
        trainer._signal_connector.register_signal_handlers = lambda: None  # type: ignore[method-assign]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check that all ranks resumed from one step, and clean up after killed writers."""
        self._saved_step = self._boundary_step = trainer.global_step
        self._saved_at = self._clock()
        steps = torch.tensor([trainer.global_step, -trainer.global_step])
        newest, oldest = (int(value) for value in _maximum(trainer, steps) * torch.tensor([1, -1]))
        if newest != oldest:
            raise RuntimeError(
                f"The ranks resumed from different steps, {oldest} to {newest}. "
                "Put the run directory on a file system that all nodes share."
            )
        if trainer.is_global_zero:
            self.directory.mkdir(parents=True, exist_ok=True)
            remove_leftovers(self.directory)
        epoch_loop = trainer.fit_loop.epoch_loop
        if epoch_loop.restarting and epoch_loop.batch_progress.current.ready == 0:
            epoch_loop.restarting = False  # a whole number of epochs: the next begins as any does

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: object, batch_idx: int
    ) -> None:
        """The boundary between two steps of one epoch."""
        if batch_idx > 0 and trainer.global_step != self._boundary_step:
            self._boundary(trainer, epoch_ended=False)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The boundary between two epochs."""
        if trainer.global_step != self._boundary_step:
            self._boundary(trainer, epoch_ended=True)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the end, if it is not saved yet: the final model is this checkpoint."""
        self._ended = True
        if trainer.global_step != self._saved_step:
            self._save(trainer)

    def _boundary(self, trainer: Trainer, *, epoch_ended: bool) -> None:
        """Save if the policy or a stop request says so; all ranks decide the same."""
        self._boundary_step = step = trainer.global_step
        wishes = torch.zeros(2, dtype=torch.int64)
        wishes[_STOP] = _REASONS.index(self.stop.reason)
        wishes[_SAVE] = int(self._is_due(step, trainer.current_epoch, epoch_ended))
        wishes = _maximum(trainer, wishes)
        reason = _REASONS[int(wishes[_STOP])]
        if wishes[_SAVE] or (reason is not None and self.policy.at_exit):
            self._save(trainer)
        if reason is not None:
            if self._journal is not None:
                self._journal.write("stop", step=step, reason=reason)
            raise TrainingStopped(step, reason, saved=self._saved_step == step)

    def _is_due(self, step: int, epoch: int, epoch_ended: bool) -> bool:
        policy = self.policy
        return bool(
            (policy.every_n_steps and step % policy.every_n_steps == 0)
            or (policy.every_n_epochs and epoch_ended and epoch % policy.every_n_epochs == 0)
            or (policy.every_n_seconds and self._clock() - self._saved_at >= policy.every_n_seconds)
        )

    # -- saving ---------------------------------------------------------------------------

    def _save(self, trainer: Trainer) -> None:
        """Save one checkpoint; every rank calls it, rank 0 writes.

        Raises:
            OSError: It could not be written; the checkpoints before it are as they were.
        """
        step = trainer.global_step
        path = checkpoint_path(self.directory, step)
        self._saving = True
        try:
            if not trainer.is_global_zero:
                trainer.save_checkpoint(path, weights_only=False)
            else:
                with whole_file(path) as temporary:
                    trainer.save_checkpoint(temporary, weights_only=False)
                self._commit(trainer, path, step)
        finally:
            self._saving = False
        self._saved_step, self._saved_at = step, self._clock()

    def _commit(self, trainer: Trainer, path: Path, step: int) -> None:
        epoch, batches = self._position(trainer)
        sampler = train_sampler(trainer)
        if self._journal is not None:
            self._journal.fsync()  # what led to this step is as durable as the step
        checkpoint = commit_checkpoint(
            path,
            step=step,
            epoch=epoch,
            samples=None if sampler is None else sampler.samples_before(epoch, batches),
            world_size=trainer.world_size,
            metrics={name: float(value) for name, value in trainer.callback_metrics.items()},
            model=self._describe(trainer),
        )
        if self._journal is not None:
            self._journal.write("checkpoint", step=step, epoch=epoch, bytes=checkpoint.bytes)
        if len(list_checkpoints(self.directory)) > self.policy.keep:
            prune(self.directory, keep=self.policy.keep)

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Add what reloads the model; write the loops as whole epochs and batches."""
        checkpoint[CHECKPOINT_KEY] = self._describe(trainer)
        if self._saving:
            _rest_loops(checkpoint["loops"]["fit_loop"], *self._position(trainer))

    def _position(self, trainer: Trainer) -> tuple[int, int]:
        """Return (whole epochs done, batches done of the epoch under way) at a boundary."""
        epochs = trainer.fit_loop.epoch_progress.current.processed  # type: ignore[attr-defined]
        batches = trainer.fit_loop.epoch_loop.batch_progress.current.completed
        if batches >= trainer.num_training_batches:  # the epoch is over
            return epochs, 0
        if self._ended and batches:  # a limit of steps ended the last epoch early, and counted it
            return epochs - 1, batches
        return epochs, batches

    def _describe(self, trainer: Trainer) -> dict[str, Any]:
        return describe_model(
            trainer.lightning_module,
            arguments=self._arguments,
            step=trainer.global_step,
            epoch=trainer.current_epoch,
            world_size=trainer.world_size,
        )


def _maximum(trainer: Trainer, values: torch.Tensor) -> torch.Tensor:
    """Return the element-wise maximum of `values` over all ranks."""
    if trainer.world_size == 1:
        return values
    values = values.to(trainer.strategy.root_device)
    torch.distributed.all_reduce(values, op=torch.distributed.ReduceOp.MAX)
    return values.cpu()


def _rest_loops(state: dict[str, Any], epochs: int, batches: int) -> None:
    """Write Lightning's loop state as it is between two steps, in place.

    `state` is the state of the fit loop at `epochs` whole epochs and `batches` of the next one.
    Lightning counts an epoch or a batch as ready, started, processed and completed, and restarts
    differently from each mixture; at rest all four are equal, but an epoch under way is started
    (loops/progress.py and FitLoop.update_restart_stage of Lightning 2.6).
    """
    begun = epochs + 1 if batches else epochs
    for counter in (state["epoch_progress"]["total"], state["epoch_progress"]["current"]):
        counter.update(ready=begun, started=begun, processed=epochs, completed=epochs)
    progress = state["epoch_loop.batch_progress"]
    done = progress["total"]["completed"]
    progress["total"].update(ready=done, started=done, processed=done)
    progress["current"].update(ready=batches, started=batches, processed=batches, completed=batches)
    progress["is_last_batch"] = False
