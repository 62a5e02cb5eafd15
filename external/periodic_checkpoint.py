"""A Lightning callback that saves checkpoints by a policy and stops all ranks at one step.

    Trainer(callbacks=[PeriodicCheckpoint("runs/a", CheckpointParams(every_n_steps=500))])

It saves between two optimizer steps only: after everything that belongs to a step (validation,
scheduler, the module's own hooks) and before anything of the next.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn

from ..params.checkpoint import CheckpointParams
from .agreement import FAILED, maximum, raise_together
from .exact.clean_state import CleanState
from .exact.exact_resume import install
from .exact.loaders import can_stop_validation
from .exact.loop_position import position
from .journal import Journal
from .save_policy import is_due
from .stop import StopRequest, TrainingStopped
from .stores.local import LocalStore
from .stores.saver import Saver
from .stores.store import CheckpointExists, Lease, Store, StoreError
from .strategies import refuse_own_checkpoints
from .trainer_saves import TrainerSaves

_REASONS = (None, "SIGTERM", "SIGINT")


class PeriodicCheckpoint(Callback):
    """Saves every n steps, seconds or epochs, whichever comes first, and when asked to stop.

    What it saves goes into the store, by rank 0, whatever plugin the Trainer has; Lightning's
    own `ModelCheckpoint` may work beside it.

    Args:
        store: Where checkpoints go, which all ranks can read; or the directory of a local store.
        policy: When to save, how, and what to keep.
        journal: Where rank 0 writes what it saved; None on the other ranks.
        stop: The stop request of this process; its handlers are installed here.
        lease: The right to write to the store; without one, rank 0 leases it.
        arguments: The model's constructor arguments, for the record that reloads it.
        clock: Seconds, for the policy's `every_n_seconds`.
    """

    def __init__(
        self,
        store: Store | str | Path,
        policy: CheckpointParams | None = None,
        *,
        journal: Journal | None = None,
        stop: StopRequest | None = None,
        lease: Lease | None = None,
        arguments: dict[str, Any] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.store = store if isinstance(store, Store) else LocalStore(store)
        self.policy = policy or CheckpointParams()
        self.stop = stop or StopRequest()
        self._saves = TrainerSaves(
            self.store,
            self.policy,
            journal=journal,
            lease=lease,
            arguments=arguments,
            clock=clock,
        )
        self._boundary_step = 0
        self._clean = CleanState() if self.policy.at_error else None

    def report_to(self, journal: Journal) -> None:
        """Write what is saved to `journal`, unless there is one already; on rank 0."""
        self._saves.journal = self._saves.journal or journal

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Take the signals before Lightning does: its SIGTERM handler waits for other ranks."""
        if stage != "fit":
            return
        refuse_own_checkpoints(trainer.strategy)
        install(trainer)  # what is in a checkpoint of the epoch under way
        self.stop.listen()
        trainer._signal_connector.register_signal_handlers = lambda: None  # type: ignore[method-assign]
        if trainer.is_global_zero:
            self._saves.open()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Wait for what is being written, and give back what was taken."""
        self._saves.close()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check that all ranks resumed from one step, and that no other history is in the way."""
        step = self._boundary_step = trainer.global_step
        newest = self._saves.begin_at(step)
        last, negative_first, newest = maximum(trainer, step, -step, newest)
        if last != -negative_first:
            raise RuntimeError(
                f"The ranks resumed from different steps, {-negative_first} to {last}. "
                "Put the run directory on a file system that all nodes share."
            )
        if newest > step:
            raise CheckpointExists(
                f"Training begins at step {step}, but the store has checkpoints up to step "
                f"{newest}. Go on from the newest of them, or use another store."
            )
        if self._clean is not None:
            self._clean.attach(pl_module)
            self._clean.remember(position(trainer, ended=False))

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        """From here to the next boundary an error leaves nothing clean."""
        if self._clean is not None:
            self._clean.stepping()

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

    def on_validation_batch_start(self, trainer: Trainer, *_: object) -> None:
        """A stop does not wait for the end of a validation: a resume begins that one again."""
        if self._boundary_step == trainer.global_step != self._saves.step:
            return  # between two batches of one step
        is_fit = trainer.state.fn == "fit" and not trainer.sanity_checking
        if is_fit and can_stop_validation(trainer):
            self._end_if(trainer, *maximum(trainer, _REASONS.index(self.stop.reason)))

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the end, if it is not saved yet: the final model is this checkpoint."""
        if trainer.global_step != self._saves.step:
            self._saves.save(trainer, ended=True)
        raise_together(trainer, self._saves.failure(Saver.wait))

    def _boundary(self, trainer: Trainer, *, epoch_ended: bool) -> None:
        """Save if the policy or a stop request says so; all ranks decide the same."""
        self._boundary_step = trainer.global_step
        failure = self._saves.failure(Saver.poll)
        stop, save, failed = maximum(
            trainer,
            _REASONS.index(self.stop.reason),
            int(self._is_due(trainer, epoch_ended)),
            int(failure is not None),
        )
        if failed:
            raise failure or OSError(FAILED)
        if save:
            self._saves.save(trainer)
        self._end_if(trainer, stop)
        if self._clean is not None:
            self._clean.remember(position(trainer, ended=False))

    def _end_if(self, trainer: Trainer, stop: int) -> None:
        """Save what is not saved yet and end, if the ranks agreed on a reason to stop."""
        step, reason = trainer.global_step, _REASONS[stop]
        if reason is None:
            return
        if self.policy.at_exit and step != self._saves.step:
            self._saves.save(trainer)
        raise_together(trainer, self._saves.failure(Saver.wait))
        if self._saves.journal is not None:
            self._saves.journal.write("stop", step=step, reason=reason)
        raise TrainingStopped(step, reason, saved=self._saves.step == step)

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Save the last whole step, if the error left it as it was; rank 0 alone, nobody waits.

        Lightning calls no `teardown` after an error.
        """
        is_error = isinstance(exception, Exception) and trainer.global_step != self._saves.step
        try:
            if is_error and self._saves.is_open and self._clean and self._clean.restore():
                self._saves.save(trainer, at=self._clean.position)
            self._saves.close()
        except (OSError, StoreError) as error:
            if error is not exception:
                rank_zero_warn(f"The last whole step could not be saved after the error: {error}")

    def _is_due(self, trainer: Trainer, epoch_ended: bool) -> bool:
        return is_due(
            self.policy,
            step=trainer.global_step,
            ended_epoch=trainer.current_epoch if epoch_ended else None,
            seconds=self._saves.seconds,
        )

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Add what reloads the model and what the sidecar says, whoever saves."""
        self._saves.complete(trainer, pl_module, checkpoint)
