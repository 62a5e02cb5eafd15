"""A Lightning callback that saves checkpoints by a policy and stops all ranks at one step.

    Trainer(callbacks=[PeriodicCheckpoint("runs/a", CheckpointParams(every_n_steps=500))])

It saves between two optimizer steps only: after everything that belongs to a step (validation,
scheduler, the module's own hooks) and before anything of the next. The loop state in the file is
written as "so many whole epochs and so many batches", so that a resume neither repeats nor skips
a batch, a validation or an epoch (Lightning 2.6 does at an epoch's end).
"""

import contextlib
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
from .exact.loaders import can_stop_validation, train_sampler
from .exact.loop_position import position, rest
from .journal import Journal
from .model_record import CHECKPOINT_KEY, describe_model
from .save_policy import is_due, retention
from .stop import StopRequest, TrainingStopped
from .stores.lease_holder import holder
from .stores.local import LocalStore
from .stores.place import DETAILS_KEY, details_of
from .stores.saver import Saver
from .stores.store import CheckpointExists, Lease, Store, StoredCheckpoint, StoreError
from .strategies import refuse_own_checkpoints

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
        self._journal = journal
        self._lease = lease
        self._arguments = arguments
        self._clock = clock
        self._saver: Saver | None = None
        self._held = contextlib.ExitStack()
        self._position: tuple[int, int] | None = None
        """Where our own save under way stands: (whole epochs, batches of the next)."""
        self._saved_step = -1
        self._saved_at = 0.0
        self._boundary_step = 0
        self._ended = False
        self._clean = CleanState() if self.policy.at_error else None

    def report_to(self, journal: Journal) -> None:
        """Write what is saved to `journal`, unless there is one already; on rank 0."""
        self._journal = self._journal or journal

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Take the signals before Lightning does: its SIGTERM handler waits for other ranks."""
        if stage != "fit":
            return
        refuse_own_checkpoints(trainer.strategy)
        install(trainer)  # what is in a checkpoint of the epoch under way
        self.stop.listen()
        trainer._signal_connector.register_signal_handlers = lambda: None  # type: ignore[method-assign]
        if trainer.is_global_zero:
            if self._lease is None:
                self._lease = self._held.enter_context(self.store.lease(holder()))
            self._saver = Saver(
                self.store,
                asynchronous=self.policy.asynchronous,
                lease=self._lease,
                retention=retention(self.policy),
            )

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Wait for what is being written, and give back what was taken."""
        self._let_go()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check that all ranks resumed from one step, and that no other history is in the way."""
        step = self._saved_step = self._boundary_step = trainer.global_step
        self._saved_at = self._clock()
        newest = max((c.step for c in self.store.list()), default=-1) if self._saver else -1
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
        if self._boundary_step == trainer.global_step != self._saved_step:
            return  # between two batches of one step
        is_fit = trainer.state.fn == "fit" and not trainer.sanity_checking
        if is_fit and can_stop_validation(trainer):
            self._end_if(trainer, *maximum(trainer, _REASONS.index(self.stop.reason)))

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the end, if it is not saved yet: the final model is this checkpoint."""
        self._ended = True
        if trainer.global_step != self._saved_step:
            self._save(trainer)
        raise_together(trainer, self._failure(Saver.wait))

    def _boundary(self, trainer: Trainer, *, epoch_ended: bool) -> None:
        """Save if the policy or a stop request says so; all ranks decide the same."""
        self._boundary_step = trainer.global_step
        failure = self._failure(Saver.poll)
        stop, save, failed = maximum(
            trainer,
            _REASONS.index(self.stop.reason),
            int(self._is_due(trainer, epoch_ended)),
            int(failure is not None),
        )
        if failed:
            raise failure or OSError(FAILED)
        if save:
            self._save(trainer)
        self._end_if(trainer, stop)
        if self._clean is not None:
            self._clean.remember(position(trainer, ended=False))

    def _end_if(self, trainer: Trainer, stop: int) -> None:
        """Save what is not saved yet and end, if the ranks agreed on a reason to stop."""
        step, reason = trainer.global_step, _REASONS[stop]
        if reason is None:
            return
        if self.policy.at_exit and step != self._saved_step:
            self._save(trainer)
        raise_together(trainer, self._failure(Saver.wait))
        if self._journal is not None:
            self._journal.write("stop", step=step, reason=reason)
        raise TrainingStopped(step, reason, saved=self._saved_step == step)

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Save the last whole step, if the error left it as it was; rank 0 alone, nobody waits.

        Lightning calls no `teardown` after an error.
        """
        is_error = isinstance(exception, Exception) and trainer.global_step != self._saved_step
        try:
            if is_error and self._saver and self._clean and self._clean.restore():
                self._save(trainer, at=self._clean.position)
            self._let_go()
        except (OSError, StoreError) as error:
            if error is not exception:
                rank_zero_warn(f"The last whole step could not be saved after the error: {error}")

    def _let_go(self) -> None:
        saver, self._saver = self._saver, None
        with self._held:
            if saver is not None:
                saver.close()

    def _is_due(self, trainer: Trainer, epoch_ended: bool) -> bool:
        return is_due(
            self.policy,
            step=trainer.global_step,
            ended_epoch=trainer.current_epoch if epoch_ended else None,
            seconds=self._clock() - self._saved_at,
        )

    def _failure(self, act: Callable[[Saver], None]) -> Exception | None:
        """Return why `act` failed on the rank that saves; None if it did not."""
        try:
            if self._saver is not None:
                act(self._saver)
        except (OSError, StoreError) as error:
            return error
        return None

    def _save(self, trainer: Trainer, *, at: tuple[int, int] | None = None) -> None:
        """Save one checkpoint; every rank calls it, rank 0 writes, perhaps in the background.

        Args:
            trainer: Between two steps.
            at: Where it stands, if an error took it elsewhere; then no rank waits for another.

        Raises:
            OSError, StoreError: It could not be written; the checkpoints before are as they were.
        """
        if self._journal is not None:
            self._journal.fsync()  # what led to this step is as durable as the step
        self._position = at or position(trainer, ended=self._ended)
        try:
            checkpoint = trainer._checkpoint_connector.dump_checkpoint(weights_only=False)
        finally:
            self._position = None
        step, details = trainer.global_step, details_of(checkpoint)
        failure = self._failure(
            lambda saver: saver.save(step, checkpoint, details=details, then=self._announce)
        )
        if at is None:
            raise_together(trainer, failure)
        elif failure is not None:
            raise failure
        self._saved_step, self._saved_at = step, self._clock()

    def _announce(self, stored: StoredCheckpoint) -> None:
        """Write to the journal which checkpoint exists now."""
        if self._journal is not None:
            epoch = stored.details["epoch"]
            self._journal.write("checkpoint", step=stored.step, epoch=epoch, bytes=stored.bytes)

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Add what reloads the model and what the sidecar says, whoever saves.

        In our own saves the loops are written as whole epochs and batches.
        """
        checkpoint[CHECKPOINT_KEY] = describe_model(
            pl_module,
            arguments=self._arguments,
            step=trainer.global_step,
            epoch=trainer.current_epoch,
            world_size=trainer.world_size,
        )
        sampler = train_sampler(trainer)
        details = {
            "epoch": trainer.current_epoch,
            "samples": None,
            "world_size": trainer.world_size,
            "metrics": {name: float(v) for name, v in trainer.callback_metrics.items()},
        }
        if self._position is not None:
            rest(checkpoint["loops"]["fit_loop"], *self._position)
            details["epoch"] = self._position[0]
            if sampler is not None:
                details["samples"] = sampler.samples_before(*self._position)
        checkpoint[DETAILS_KEY] = details
