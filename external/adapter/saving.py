"""Saving a lean fit by a policy, when it is asked to stop and after an error.

The same moments as `PeriodicCheckpoint`'s: between two optimizer steps, after everything that
belongs to a step and before anything of the next; or before the validation under way.
"""

import time
import warnings
from collections.abc import Callable
from typing import Any

from ...params.checkpoint import CheckpointParams
from ..agreement import FAILED, maximum, raise_together
from ..exact.clean_state import CleanState
from ..exact.loop_position import Moment, was_cut
from ..exact.metric_states import MetricStates
from ..journal import Journal
from ..save_policy import is_due
from ..stop import StopRequest, TrainingStopped
from ..stores.store import CheckpointExists, Lease, Store, StoreError
from . import checkpointing
from .fit import Fit
from .meeting import meet
from .state_writer import StateWriter
from .talk import Talk

_REASONS = (None, "SIGTERM", "SIGINT")

Captured = tuple[dict[str, Any], dict[str, Any]]
"""What was logged, and what metrics counted, at a moment."""


class Saving:
    """Saves the states of one fit.

    Args:
        fit: What is saved.
        store: Where to; None: nothing is saved, and a stop request only ends the fit.
        policy: When, how, and what stays.
        journal: Where rank 0 writes what it saved.
        stop: The stop request of this process.
        lease: The right to write to the store; without one, rank 0 leases it.
        arguments: The model's constructor arguments, for the record that reloads it.
        clock: Seconds, for the policy's `every_n_seconds`.
    """

    def __init__(
        self,
        fit: Fit,
        store: Store | None,
        policy: CheckpointParams,
        *,
        journal: Journal | None,
        stop: StopRequest,
        lease: Lease | None,
        arguments: dict[str, Any] | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.fit, self.store, self.policy, self.stop = fit, store, policy, stop
        self._journal, self._clock = journal, clock
        self._trainer: Any = fit.trainer
        self.writer = StateWriter(
            fit, store, policy, journal=journal, lease=lease, arguments=arguments
        )
        rescues = policy.at_error and store is not None
        self._clean = CleanState() if rescues else None
        self.stepping = (lambda: None) if self._clean is None else self._clean.stepping
        """Says that from here to the next boundary an error leaves nothing clean."""
        self._metrics: MetricStates | None = None
        self._talk = Talk(fit.strategy.world_size)
        self._validation_talk = Talk(fit.strategy.world_size)
        self._validation_batches = 0
        self._boundary_step = 0
        self._saved_step = -1
        self._saved_at = 0.0
        self._captured: Captured | None = None
        self.before_validation: dict[str, Any] | None = None

    def begin(self) -> None:
        """Check that all ranks resumed from one step, and that no other history is in the way.

        Raises:
            RuntimeError: The ranks resumed from different steps.
            CheckpointExists: The store holds a history that went further.
        """
        step = self._saved_step = self._boundary_step = self.fit.progress.steps
        self._saved_at = self._clock()
        newest = -1
        if self.writer.is_open and self.store is not None:
            newest = max((each.step for each in self.store.list()), default=-1)
        last, negative_first, newest = maximum(self._trainer, step, -step, newest)
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
        self._metrics = MetricStates(self.fit.module)
        if self._clean is not None:
            self._clean.attach(self.fit.module)
        self._remember()

    def boundary(self, *, epoch_ended: bool) -> None:
        """Save if the policy or a stop request says so; all ranks decide the same.

        Does nothing between two batches of one optimizer step.

        Raises:
            TrainingStopped: All ranks end here.
            OSError, StoreError: A save failed.
        """
        step = self.fit.progress.steps
        if step == self._boundary_step:
            return
        self._boundary_step = step
        is_alone = self._talk.world_size == 1
        if is_alone and self.store is None and self.stop.reason is None:
            return
        save = self._is_due(step, epoch_ended=epoch_ended, is_alone=is_alone)
        if is_alone:
            if self.policy.asynchronous:
                self.writer.poll()
            if save:
                self._save()
            if self.stop.reason is not None:
                self._end(self.stop.reason)
        elif save or epoch_ended or self._talk.is_due(step):
            self._agree(step, save=save)
        self._remember()

    def _is_due(self, step: int, *, epoch_ended: bool, is_alone: bool) -> bool:
        policy = self.policy
        if self.store is None:
            return False
        if not epoch_ended and policy.every_n_steps is policy.every_n_seconds is None:
            return False
        return is_due(
            policy,
            step=step,
            ended_epoch=self.fit.progress.epochs_completed if epoch_ended else None,
            # A clock decides for one process alone; of several, only where they talk.
            seconds=self._clock() - self._saved_at if is_alone and policy.every_n_seconds else 0.0,
        )

    def _agree(self, step: int, *, save: bool) -> None:
        """Decide with the other ranks, who come here at the same step."""
        every = self.policy.every_n_seconds
        late = every is not None and self._clock() - self._saved_at >= every
        failure = self.writer.failure()
        stop, by_time, failed, pause = maximum(
            self._trainer,
            _REASONS.index(self.stop.reason),
            int(late and self.store is not None),
            int(failure is not None),
            self._talk.pause(step),
        )
        self._talk.agreed(step, pause)
        if failed:
            raise failure or OSError(FAILED)
        if save or by_time:
            self._save()
        reason = _REASONS[stop]
        if reason is not None:
            self._end(reason)

    def validation_begins(self) -> None:
        """Take note of what was known before, which a resume begins the validation with."""
        if self._metrics is not None:
            self.before_validation = checkpointing.known(
                self.fit, self.fit.logged.capture(), self._metrics.capture()
            )

    def within_validation(self, *, can_stop: bool) -> None:
        """Stop before a validation batch: a resume begins this validation again.

        Args:
            can_stop: Nothing was shown yet that would be shown again, and all ranks come here.

        Raises:
            TrainingStopped: All ranks end here.
        """
        if not can_stop or self.before_validation is None:
            return
        if self._boundary_step == self.fit.progress.steps != self._saved_step:
            return  # between two batches of one step
        self._validation_batches += 1
        count, talk = self._validation_batches, self._validation_talk
        reason = self.stop.reason
        if talk.world_size > 1:
            if not talk.is_due(count):
                return
            index = _REASONS.index(reason)
            stop, pause = maximum(self._trainer, index, talk.pause(count))
            talk.agreed(count, pause)
            reason = _REASONS[stop]
        if reason is not None:
            self._end(reason, within=self.before_validation)

    def finish(self) -> None:
        """Save the end, if it is not saved yet: the final model is this checkpoint."""
        if self.fit.progress.steps != self._saved_step and self.store is not None:
            progress = self.fit.progress
            place = progress.place()
            is_cut = progress.completed and not progress.is_last_batch
            if is_cut and place[1] == 0 and was_cut(self._trainer):
                place = (progress.epochs_processed - 1, progress.completed)
            self._save(at=place, whole=True)
        raise_together(self._trainer, self.writer.failure(wait=True))

    def rescue(self, error: BaseException) -> None:
        """Save the last whole step, if the error left it so: rank 0 alone, or all their parts."""
        step, in_parts = self.fit.progress.steps, self.fit.strategy.mesh is not None
        if not isinstance(error, Exception) or step == self._saved_step or self._clean is None:
            return
        try:
            is_clean = self._clean.restore()
            meeting = meet(step if is_clean else -1) if in_parts else None
            if is_clean and (in_parts or self.writer.is_open):
                assert self._captured is not None  # with the position
                own = checkpointing.known(self.fit, *self._captured)
                self._save(at=self._clean.position, own=own, alone=True, meeting=meeting)
        except (OSError, StoreError, RuntimeError) as failure:
            if failure is not error:
                sentence = f"The last whole step could not be saved after the error: {failure}"
                warnings.warn(sentence, stacklevel=2)

    def _end(self, reason: str, *, within: dict[str, Any] | None = None) -> None:
        """Save what is not saved yet and end."""
        step = self.fit.progress.steps
        if self.policy.at_exit and step != self._saved_step and self.store is not None:
            self._save(own=within, moment=Moment.REST if within is None else Moment.VALIDATION)
        raise_together(self._trainer, self.writer.failure(wait=True))
        if self._journal is not None:
            self._journal.write("stop", step=step, reason=reason)
        raise TrainingStopped(step, reason, saved=self._saved_step == step)

    def _save(
        self, *, at: tuple[int, int] | None = None, own: dict[str, Any] | None = None, **how: Any
    ) -> None:
        """Save one checkpoint; every rank calls it; `how` is of `StateWriter.save`."""
        if own is None:
            if self._metrics is None:
                self._metrics = MetricStates(self.fit.module)
            self.fit.logged.fold()
            own = checkpointing.known(self.fit, self.fit.logged.capture(), self._metrics.capture())
        place = at or self.fit.progress.place()
        self.writer.save(own, place=place, **how)
        self._saved_step, self._saved_at = self.fit.progress.steps, self._clock()

    def _remember(self) -> None:
        """Take note of a boundary, for a checkpoint after an error."""
        if self._clean is not None and self._metrics is not None:
            self._clean.remember(self.fit.progress.place())
            self._captured = (self.fit.logged.capture(), self._metrics.capture())
