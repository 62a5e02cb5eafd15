"""Saving a Trainer that stands between two steps: its checkpoint goes into a store, by rank 0.

The loop state in the file is written as "so many whole epochs and so many batches", so that a
resume neither repeats nor skips a batch, a validation or an epoch (Lightning 2.6 does at an epoch's
end).
"""

import contextlib
import time
from collections.abc import Callable
from typing import Any

from lightning.pytorch import LightningModule, Trainer

from ..params.checkpoint import CheckpointParams
from .agreement import raise_together
from .exact.loaders import train_sampler
from .exact.loop_position import position, rest
from .journal import Journal
from .model_record import CHECKPOINT_KEY, describe_model
from .save_policy import retention
from .stores.lease_holder import holder
from .stores.place import DETAILS_KEY, details_of
from .stores.saver import Saver, failure_of
from .stores.store import Lease, Store, StoredCheckpoint


class TrainerSaves:
    """The saves of one Trainer; every rank calls the same methods, rank 0 alone writes.

    Args:
        store: Where checkpoints go.
        policy: How to save, and what to keep.
        journal: Where rank 0 writes what it saved.
        lease: The right to write to the store; without one, rank 0 leases it.
        arguments: The model's constructor arguments, for the record that reloads it.
        clock: Seconds.

    Attributes:
        step: That of the newest save, or that where training began.
    """

    def __init__(
        self,
        store: Store,
        policy: CheckpointParams,
        *,
        journal: Journal | None = None,
        lease: Lease | None = None,
        arguments: dict[str, Any] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.journal = journal
        self.step = -1
        self._store = store
        self._policy = policy
        self._lease = lease
        self._arguments = arguments
        self._clock = clock
        self._saver: Saver | None = None
        self._held = contextlib.ExitStack()
        self._position: tuple[int, int] | None = None
        """Where our own save under way stands: (whole epochs, batches of the next)."""
        self._began_at = 0.0

    @property
    def is_open(self) -> bool:
        """Whether this is the rank that writes, between `open` and `close`."""
        return self._saver is not None

    @property
    def seconds(self) -> float:
        """Since the newest save, or since training began."""
        return self._clock() - self._began_at

    def open(self) -> None:
        """Be the one that writes; on rank 0.

        Raises:
            LeaseLost: Somebody else writes to the store.
        """
        if self._lease is None:
            self._lease = self._held.enter_context(self._store.lease(holder()))
        self._saver = Saver(
            self._store,
            asynchronous=self._policy.asynchronous,
            lease=self._lease,
            retention=retention(self._policy),
        )

    def begin_at(self, step: int) -> int:
        """Take `step`, where training begins, for saved; returns the store's newest, -1 if none.

        One that only another curitorch can read counts: it would be in the way.
        """
        self.step, self._began_at = step, self._clock()
        if self._saver is None:
            return -1
        steps = [checkpoint.step for checkpoint in self._store.list()]
        return max([-1, *steps, *self._store.unknown()])

    def close(self) -> None:
        """Wait for what is being written, and give back what was taken."""
        saver, self._saver = self._saver, None
        with self._held:
            if saver is not None:
                saver.close()

    def failure(self, act: Callable[[Saver], None]) -> Exception | None:
        """Return why `act` failed on the rank that writes; None if it did not."""
        saver = self._saver
        return None if saver is None else failure_of(lambda: act(saver))

    def save(
        self, trainer: Trainer, *, ended: bool = False, at: tuple[int, int] | None = None
    ) -> None:
        """Save one checkpoint, perhaps in the background.

        Args:
            trainer: Between two steps.
            ended: Whether the training is over.
            at: Where it stands, if an error took it elsewhere; then no rank waits for another.

        Raises:
            OSError, StoreError: It could not be written; the checkpoints before are as they were.
        """
        if self.journal is not None:
            self.journal.fsync()  # what led to this step is as durable as the step
        self._position = at or position(trainer, ended=ended)
        try:
            checkpoint = trainer._checkpoint_connector.dump_checkpoint(weights_only=False)
        finally:
            self._position = None
        step, details = trainer.global_step, details_of(checkpoint)
        failure = self.failure(
            lambda saver: saver.save(step, checkpoint, details=details, then=self._announce)
        )
        if at is None:
            raise_together(trainer, failure)
        elif failure is not None:
            raise failure
        self.step, self._began_at = step, self._clock()

    def _announce(self, stored: StoredCheckpoint) -> None:
        """Write to the journal which checkpoint exists now."""
        if self.journal is not None:
            epoch = stored.details["epoch"]
            self.journal.write("checkpoint", step=stored.step, epoch=epoch, bytes=stored.bytes)

    def complete(
        self, trainer: Trainer, module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Add what reloads the model and what the sidecar says, whoever saves.

        In our own saves the loops are written as whole epochs and batches.
        """
        checkpoint[CHECKPOINT_KEY] = describe_model(
            module,
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
