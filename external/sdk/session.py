"""A session: one process's steps, metrics and uploads, and to whom they are reported.

    session = Session(reporter, total=100)
    with session.train_step():
        …
    session.metric({"loss": 0.25})

The rules of use are here, the same in every mode; what becomes of it is the reporter's.
"""

import contextlib
import os
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from .. import this_process
from .errors import PeriFlowError
from .values import plain_metrics, whole_number


class Reporter(Protocol):
    """Takes what a session reports; never blocks and raises nothing for a full disk."""

    managed: bool

    def plan(self, steps: int | None, epochs: int | None, batches_per_epoch: int | None) -> None:
        """Take note of how long the training is to be, as far as is known."""

    def begin_at(self, step: int) -> None:
        """Take note that training goes on after `step`, not where it was said at first."""

    def step(self, step: int, seconds: float, epoch: int | None) -> None:
        """Take note that `step` ended."""

    def metric(self, values: dict[str, Any], step: int, epoch: int | None) -> None:
        """Take note of plain values, logged at `step`; nobody else has or changes them."""

    def upload(self, step: int, path: Path | None, *, emergency: bool) -> bool:
        """Upload what was saved; returns whether it is known where that is."""

    def is_due(self, step: int) -> bool:
        """Return whether `step` is the one of the emergency save, or later."""

    def check_goes_on(self, step: int) -> None:
        """Raise what ends the script if `step`, which begins, lies beyond an emergency save."""

    def close(self, step: int, error: BaseException | None = None) -> None:
        """Finish: nothing is reported afterwards; `error` is what left the script."""


class Session:
    """The calls of one process, between `init` and its end; safe to use from several threads.

    Args:
        reporter: To whom it reports.
        total: Planned steps, None if nobody knows.
        processed: Steps done before: counting goes on from there.

    Raises:
        PeriFlowError: `total` is not a whole number above `processed`.
    """

    def __init__(self, reporter: Reporter, *, total: object = None, processed: int = 0) -> None:
        self.total = None if total is None else whole_number(total, what="total_train_steps")
        if self.total is not None and self.total <= processed:
            raise PeriFlowError(
                "total_train_steps should be greater than the current step, current step = "
                f"{processed}, total train step = {self.total}. Nothing is left to train, or the "
                "total counts only the steps that are left: give those of the whole training."
            )
        self.reporter = reporter
        self.epoch: int | None = None
        self._step = processed
        self._began: float | None = None
        self._has_uploaded = False
        self._lock = threading.Lock()
        self._pid = this_process.pid
        self._is_closed = False

    @property
    def step(self) -> int:
        """The step that was started last; that which was done before, if none was."""
        return self._step

    @property
    def has_uploaded(self) -> bool:
        """Whether this step has had its upload."""
        return self._has_uploaded

    def begin_at(self, step: int) -> None:
        """Count on from `step`, which what the script goes on from has done."""
        if step != self._step:
            self._step = step
            self.reporter.begin_at(step)

    @property
    def is_started(self) -> bool:
        """Whether a step is under way."""
        return self._began is not None

    def start_step(self) -> None:
        """Begin the next step.

        Raises:
            PeriFlowError: One is under way.
            TrainingStopped: All ranks had to save at the step before, and end now.
        """
        with self._lock:
            if self._began is not None:
                raise PeriFlowError(
                    f"Step already started: step {self._step} has not ended. Maybe `end_step` is "
                    "not called for the previous step? Call it, or use `with train_step():`."
                )
            self._step += 1
            self._has_uploaded = False
            self._began = time.monotonic()
        try:
            self.reporter.check_goes_on(self._step)
        except SystemExit:
            self._step, self._began = self._step - 1, None
            raise

    def end_step(self, *, to: int | None = None) -> None:
        """End the step; with `to`, it is the last one of several that were one.

        Raises:
            PeriFlowError: None is under way.
        """
        with self._lock:
            if self._began is None:
                raise PeriFlowError(
                    "Cannot call `end_step` before calling `start_step`: no step is under way. "
                    "Call start_step() first, or use `with train_step():`."
                )
            seconds = time.monotonic() - self._began
            self._began = None
            if to is not None:
                self._step = to
            step = self._step
        if this_process.pid == self._pid:
            self.reporter.step(step, seconds, self.epoch)

    @contextlib.contextmanager
    def train_step(self) -> Iterator[None]:
        """Begin a step and end it with the block, also if that raises."""
        self.start_step()
        try:
            yield
        finally:
            self.end_step()

    def metric(
        self, message: Mapping[str, Any], *, step: int | None = None, epoch: int | None = None
    ) -> None:
        """Report values of the step that was started last.

        Raises:
            PeriFlowError: `message` is not a dictionary of numbers, text, and lists of them.
        """
        values = plain_metrics(message)
        if this_process.pid == self._pid:
            at = self._step if step is None else step
            self.reporter.metric(values, at, self.epoch if epoch is None else epoch)

    def upload_checkpoint(self, path: str | os.PathLike[str] | None = None) -> None:
        """Upload what was saved since the last time, or `path`, in the background.

        Raises:
            PeriFlowError: There was an upload in this step already.
        """
        where = None if path is None else Path(path).absolute()
        with self._lock:
            if self._has_uploaded:
                raise PeriFlowError(
                    f"Checkpoint is already uploaded for the step {self._step}. Did you missed "
                    "using pf.train_step? One step has one checkpoint: start a step between two."
                )
            self._has_uploaded = self.reporter.managed
        if this_process.pid == self._pid:
            is_emergency = self.reporter.is_due(self._step)
            if not self.reporter.upload(self._step, where, emergency=is_emergency):
                self._has_uploaded = False

    def is_emergency_save(self) -> bool:
        """Return whether to save now; the same on all ranks at the same step."""
        return this_process.pid == self._pid and self.reporter.is_due(self._step)

    def close(self, error: BaseException | None = None) -> None:
        """Finish: wait for the last upload, write what is waiting; again does nothing."""
        if not self._is_closed and this_process.pid == self._pid:
            self._is_closed = True
            self.reporter.close(self._step, error)
