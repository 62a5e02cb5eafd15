"""A watch over a job whose script stalls: reported with its ranks' stacks, cancelled if wanted."""

from functools import partial
from pathlib import Path

from ...external.attempt import Attempt
from ...external.layout import Layout
from ...external.rank_report import read_reports
from ...params import LaunchParams
from ..stall import StallWatch, stacks_by
from .following import Followed
from .job import Job


class JobWatch:
    """Looks at one followed job, attempt by attempt.

    Args:
        followed: The run and its job.
        launch: How long a step may take, and what to do then.
        name: What messages call it, where several are followed.
    """

    def __init__(self, followed: Followed, launch: LaunchParams, *, name: str = "") -> None:
        self._followed = followed
        self._launch = launch
        self._name = name
        self._stall: StallWatch | None = None

    def cancels(self) -> bool:
        """Report a stall once; cancel the job if it is to be killed for it, and return whether."""
        self._stall = self._of_attempt()
        if self._stall is None or not self._stall.is_to_be_killed(self._followed.progress):
            return False
        self._followed.stalled = True
        self._followed.job.cancel()
        return True

    def _of_attempt(self) -> StallWatch | None:
        """Return the watch over the attempt that runs; another one after a requeue."""
        followed = self._followed
        if followed.has_ended or followed.state != "RUNNING":
            return None  # it waits in the queue, for hours perhaps
        if self._stall is not None and self._stall.attempt.number == followed.progress.attempt:
            return self._stall
        attempt = followed.attempt()
        if attempt is None or attempt.number != followed.progress.attempt:
            return None  # its ranks have not begun
        stacks = partial(_stacks, followed.job)
        return StallWatch(followed.run.path, attempt, self._launch, stacks, name=self._name)


def _stacks(job: Job, run: Path, attempt: Attempt) -> str:
    reports = read_reports(Layout(run).logs(attempt.number))
    return stacks_by(job.ask_for_stacks, run, attempt, reports)
