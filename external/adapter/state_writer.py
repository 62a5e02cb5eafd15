"""Writes the states of a lean fit into a store: rank 0, at once or in the background.

Tensors that lie in parts on all processes (FSDP2) are written in parts by all of them, in the
background as well.
"""

import contextlib
from typing import Any

from lightning.pytorch.utilities import rank_zero_warn

from ...params.checkpoint import CheckpointParams
from ..agreement import FAILED, raise_together
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
from .sharded_saving import PartsSaver


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
        self._parts: PartsSaver | None = None
        if store is None:
            return
        how: dict[str, Any] = {"asynchronous": policy.asynchronous, "retention": retention(policy)}
        if fit.strategy.is_global_zero:
            lease = lease or self._held.enter_context(store.lease(holder()))
            self._saver = Saver(store, lease=lease, **how)
            self._held.callback(self._saver.close)
        if fit.strategy.mesh is not None:
            self._parts = PartsSaver(store, lease=lease, **how)
            self._held.callback(self._parts.close)

    @property
    def _savers(self) -> list[Saver | PartsSaver]:
        return [each for each in (self._saver, self._parts) if each is not None]

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
        self._agree_on_parts(meeting)
        checkpoint = checkpointing.dump(
            self._fit, own, place=place, moment=moment, arguments=self._arguments, alone=alone
        )
        if meeting is not None:
            checkpoint[KEY]["ranks"] = meeting.gathered(own)
        failure = self._write(checkpoint, whole=whole, group=meeting and meeting.group)
        if not alone:
            raise_together(self._fit.trainer, failure)  # type: ignore[arg-type]
        elif failure is not None:
            raise failure

    def _agree_on_parts(self, meeting: Meeting | None) -> None:
        """Wait for the parts under way; where those of one process failed, no other begins anew.

        Raises:
            OSError, StoreError: A save failed, here or there.
        """
        if self._parts is None or not self._policy.asynchronous:
            return
        failure = self.failure(wait=True)
        if meeting is None:
            raise_together(self._fit.trainer, failure)  # type: ignore[arg-type]
        elif any(meeting.gathered(failure is not None)):
            raise failure or OSError(FAILED)

    def _write(self, checkpoint: dict[str, Any], *, whole: bool, group: Any) -> Exception | None:
        """Write a checkpoint, in parts if its tensors lie so and it need not be `whole`."""
        step, saver, parts = self._fit.progress.steps, self._saver, self._parts
        how: dict[str, Any] = {"details": details_of(checkpoint), "then": self._announce}
        if parts is not None and whole:
            from .sharded import gathered

            checkpoint = gathered(checkpoint, rank=self._fit.strategy.global_rank)
        elif parts is not None:
            return failure_of(lambda: parts.save(step, checkpoint, **how, group=group))
        if saver is None:
            return None
        return failure_of(lambda: saver.save(step, checkpoint, **how))

    def failure(self, *, wait: bool = False) -> Exception | None:
        """Return why a save failed that was under way, as far as it is known; None: none did.

        Args:
            wait: Until all is durable.
        """
        return failure_of(self.wait if wait else self.poll)

    def poll(self) -> None:
        """Take note of what is durable meanwhile, without waiting.

        Raises:
            OSError, StoreError: A save failed.
        """
        for saver in self._savers:
            saver.poll()

    def wait(self) -> None:
        """Wait until all is durable.

        Raises:
            OSError, StoreError: A save failed.
        """
        for saver in self._savers:
            saver.wait()

    def close(self) -> None:
        """Wait for what is being written, and give back what was taken.

        Raises:
            OSError, StoreError: A save failed.
        """
        self._saver = self._parts = None
        self._held.close()

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
