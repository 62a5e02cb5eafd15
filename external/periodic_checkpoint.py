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
from .atomic import remove_leftovers
from .checkpoint import DETAILS_KEY, checkpoint_path, prune, read_checkpoint, sidecar_path
from .journal import Journal
from .loaders import train_sampler
from .loop_position import position, rest
from .model_record import CHECKPOINT_KEY, describe_model
from .stop import StopRequest, TrainingStopped
from .stores.async_io import AsyncCheckpointIO
from .stores.verified_io import SIDECAR_KEYS, VerifiedCheckpointIO, commit

_STOP, _SAVE, _FAILED = 0, 1, 2
_REASONS = (None, "SIGTERM", "SIGINT")


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
        self._unannounced: list[Path] = []
        self._described: dict[str, Any] = {}

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
        if trainer.is_global_zero:
            self._attend(trainer, wait=True)

    def _boundary(self, trainer: Trainer, *, epoch_ended: bool) -> None:
        """Save if the policy or a stop request says so; all ranks decide the same."""
        self._boundary_step = step = trainer.global_step
        failure = self._background_failure(trainer)
        wishes = torch.zeros(3, dtype=torch.int64)
        wishes[_FAILED] = int(failure is not None)
        wishes[_STOP] = _REASONS.index(self.stop.reason)
        wishes[_SAVE] = int(self._is_due(step, trainer.current_epoch, epoch_ended))
        wishes = _maximum(trainer, wishes)
        if wishes[_FAILED]:
            raise failure or OSError("Rank 0 could not write a checkpoint; its log says why.")
        reason = _REASONS[int(wishes[_STOP])]
        if wishes[_SAVE] or (reason is not None and self.policy.at_exit):
            self._save(trainer)
        if reason is not None:
            if trainer.is_global_zero:
                self._attend(trainer, wait=True)
            if self._journal is not None:
                self._journal.write("stop", step=step, reason=reason)
            raise TrainingStopped(step, reason, saved=self._saved_step == step)

    def _background_failure(self, trainer: Trainer) -> OSError | None:
        if not trainer.is_global_zero:
            return None
        try:
            self._attend(trainer, wait=False)
        except OSError as error:
            return error
        return None

    def _is_due(self, step: int, epoch: int, epoch_ended: bool) -> bool:
        policy = self.policy
        return bool(
            (policy.every_n_steps and step % policy.every_n_steps == 0)
            or (policy.every_n_epochs and epoch_ended and epoch % policy.every_n_epochs == 0)
            or (policy.every_n_seconds and self._clock() - self._saved_at >= policy.every_n_seconds)
        )

    def _save(self, trainer: Trainer) -> None:
        """Save one checkpoint; every rank calls it, rank 0 writes, perhaps in the background.

        Raises:
            OSError: It could not be written; the checkpoints before it are as they were.
        """
        step = trainer.global_step
        path = checkpoint_path(self.directory, step)
        if self._journal is not None:
            self._journal.fsync()  # what led to this step is as durable as the step
        self._saving = True
        try:
            trainer.save_checkpoint(path, weights_only=False)
        finally:
            self._saving = False
        self._saved_step, self._saved_at = step, self._clock()
        if trainer.is_global_zero:
            plugin = trainer.strategy.checkpoint_io
            if not isinstance(plugin, VerifiedCheckpointIO | AsyncCheckpointIO):
                commit(self._described, path)  # a plugin of the user's writes no sidecar
            self._unannounced.append(path)
            self._announce_durable()

    def _attend(self, trainer: Trainer, *, wait: bool) -> None:
        """See what the background has written; rank 0 only.

        Raises:
            OSError: It could not write something.
        """
        plugin = trainer.strategy.checkpoint_io
        if isinstance(plugin, AsyncCheckpointIO):
            if wait:
                plugin.wait()
            else:
                plugin.poll()
        self._announce_durable()

    def _announce_durable(self) -> None:
        """Write to the journal which checkpoints exist now, and prune the old ones."""
        while self._unannounced and sidecar_path(self._unannounced[0]).exists():
            saved = read_checkpoint(self._unannounced.pop(0))
            if self._journal is not None:
                self._journal.write(
                    "checkpoint", step=saved.step, epoch=saved.epoch, bytes=saved.bytes
                )
            prune(self.directory, keep=self.policy.keep)

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Add what reloads the model; write the loops as whole epochs and batches."""
        checkpoint[CHECKPOINT_KEY] = describe_model(
            pl_module,
            arguments=self._arguments,
            step=trainer.global_step,
            epoch=trainer.current_epoch,
            world_size=trainer.world_size,
        )
        if self._saving:
            epochs, batches = position(trainer, ended=self._ended)
            sampler = train_sampler(trainer)
            checkpoint[DETAILS_KEY] = {
                "epoch": epochs,
                "samples": None if sampler is None else sampler.samples_before(epochs, batches),
                "world_size": trainer.world_size,
                "metrics": {name: float(v) for name, v in trainer.callback_metrics.items()},
            }
            rest(checkpoint["loops"]["fit_loop"], epochs, batches)
            self._described = {name: checkpoint[name] for name in SIDECAR_KEYS}


def _maximum(trainer: Trainer, values: torch.Tensor) -> torch.Tensor:
    """Return the element-wise maximum of `values` over all ranks."""
    if trainer.world_size == 1:
        return values
    values = values.to(trainer.strategy.root_device)
    torch.distributed.all_reduce(values, op=torch.distributed.ReduceOp.MAX)
    return values.cpu()
