"""Writes the states of a lean fit into a store: rank 0, at once or in the background.

Tensors that lie in parts on all processes (FSDP2) are written in parts by all of them.
"""

import contextlib
from collections.abc import Callable
from typing import Any

from lightning.pytorch.utilities import rank_zero_warn

from ...params.checkpoint import CheckpointParams
from ..agreement import raise_together
from ..exact.exact_resume import KEY
from ..exact.loop_position import Moment
from ..journal import Journal
from ..save_policy import retention
from ..stores.lease_holder import holder
from ..stores.place import details_of
from ..stores.saver import Saver, failure_of
from ..stores.store import Lease, Store, StoredCheckpoint, StoreError
from . import checkpointing
from .fit import Fit
from .meeting import Meeting


class StateWriter:
    """See the module.

    Args:
        fit: What is written.
        store: Where to; None: nothing is.
        policy: How, and what stays.
        journal: Where rank 0 says what exists now.
        lease: The right to write to the store; without one, rank 0 leases it.
        arguments: The model's constructor arguments, for the record that reloads it.
    """

    def __init__(
        self,
        fit: Fit,
        store: Store | None,
        policy: CheckpointParams,
        *,
        journal: Journal | None,
        lease: Lease | None,
        arguments: dict[str, Any] | None,
    ) -> None:
        self._fit, self._store, self._policy = fit, store, policy
        self._journal, self._arguments = journal, arguments
        self._held = contextlib.ExitStack()
        self._saver: Saver | None = None
        self._lease: Lease | None = None
        if store is not None and fit.strategy.is_global_zero:
            if lease is None:
                lease = self._held.enter_context(store.lease(holder()))
            self._lease = lease
            self._saver = Saver(
                store,
                asynchronous=policy.asynchronous,
                lease=lease,
                retention=retention(policy),
            )

    @property
    def is_open(self) -> bool:
        """Whether this is the process that writes."""
        return self._saver is not None

    def save(
        self,
        own: dict[str, Any],
        *,
        place: tuple[int, int],
        moment: Moment = Moment.REST,
        alone: bool = False,
        whole: bool = False,
        meeting: Meeting | None = None,
    ) -> None:
        """Save one checkpoint; every rank calls it unless `alone`.

        Args:
            own: What this process knows of the epoch under way.
            place: (whole epochs, batches of the next one) that a resume begins at.
            moment: What a resume has still to do there.
            alone: After an error: no rank waits for another.
            whole: As one file also where the tensors lie in parts.
            meeting: After an error: where all processes met again, whose tensors lie in parts.

        Raises:
            OSError, StoreError: It could not be written; the checkpoints before are as they were.
        """
        if self._journal is not None:
            self._journal.fsync()  # what led to this step is as durable as the step
        checkpoint = checkpointing.dump(
            self._fit, own, place=place, moment=moment, arguments=self._arguments, alone=alone
        )
        if meeting is not None:
            checkpoint[KEY]["ranks"] = meeting.gathered(own)
        failure = self._write(checkpoint, details_of(checkpoint), whole=whole, meeting=meeting)
        if not alone:
            raise_together(self._fit.trainer, failure)  # type: ignore[arg-type]
        elif failure is not None:
            raise failure

    def _write(
        self,
        checkpoint: dict[str, Any],
        details: dict[str, Any],
        *,
        whole: bool,
        meeting: Meeting | None,
    ) -> Exception | None:
        """Write a checkpoint, in parts if its tensors lie so and it need not be `whole`."""
        step, strategy = self._fit.progress.steps, self._fit.strategy
        if strategy.mesh is not None:
            from .sharded import gathered

            if not whole:
                group = None if meeting is None else meeting.group
                return self._write_parts(step, checkpoint, details, group)
            checkpoint = gathered(checkpoint, rank=strategy.global_rank)
        return self.failure(
            lambda saver: saver.save(step, checkpoint, details=details, then=self._announce)
        )

    def _write_parts(
        self, step: int, checkpoint: dict[str, Any], details: dict[str, Any], group: Any
    ) -> Exception | None:
        from .sharded_saving import save_parts

        assert self._store is not None
        try:
            stored = save_parts(
                self._store,
                step,
                checkpoint,
                details=details,
                lease=self._lease,
                retention=retention(self._policy),
                group=group,
            )
        except (OSError, StoreError) as error:
            return error
        if stored is not None:
            self._announce(stored)
        return None

    def failure(self, act: Callable[[Saver], None]) -> Exception | None:
        """Return why `act` failed on the rank that writes; None if it did not."""
        return failure_of(self._saver, act)

    def poll(self) -> None:
        """Take note of what is durable meanwhile, without waiting.

        Raises:
            OSError, StoreError: A save failed.
        """
        if self._saver is not None:
            self._saver.poll()

    def close(self) -> None:
        """Wait for what is being written, and give back what was taken.

        Raises:
            OSError, StoreError: A save failed.
        """
        saver, self._saver = self._saver, None
        with self._held:
            if saver is not None:
                saver.close()

    def close_after(self, error: BaseException) -> None:
        """As `close`, but a failed save does not take the place of `error`."""
        try:
            self.close()
        except (OSError, StoreError) as failure:
            if failure is not error:
                rank_zero_warn(f"A checkpoint could not be written: {failure}")

    def _announce(self, stored: StoredCheckpoint) -> None:
        """Write to the journal which checkpoint exists now."""
        if self._journal is not None:
            epoch = stored.details["epoch"]
            self._journal.write("checkpoint", step=stored.step, epoch=epoch, bytes=stored.bytes)
