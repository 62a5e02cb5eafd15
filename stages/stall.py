"""A script that stalls, as no step ends for too long: said once, with its ranks' Python stacks."""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from ..external.attempt import Attempt
from ..external.layout import Layout
from ..external.progress import Progress
from ..external.rank import ask_for_stacks, listens
from ..external.rank_report import RankReport, read_reports
from ..params import LaunchParams
from .processes import survivors

STACKS_SECONDS = 10.0  # until the ranks' stacks are in their logs
QUIET_SECONDS = 0.5  # a log that has not grown for so long has all of them


class StallWatch:
    """Looks at a run's progress, and at its ranks when there is none.

    Only scripts that report steps can stall: those that opened the journal in this attempt.

    Args:
        run: The run directory.
        attempt: What is running.
        launch: How long a step may take, and what to do then.
        stacks: Returns where the ranks are; those of this machine without it.
        name: What the report calls the run, where there are several.
    """

    def __init__(
        self,
        run: Path,
        attempt: Attempt,
        launch: LaunchParams,
        stacks: Callable[[Path, Attempt], str] | None = None,
        *,
        name: str = "",
    ) -> None:
        self._run = run
        self._stacks = stacks or _stacks
        self._name = name
        self.attempt = attempt
        self._seconds = launch.stall_seconds
        self._kills = launch.kill_stalled
        self._step_time: float | None = None
        self._seen = 0.0
        self._is_reported = False

    def is_to_be_killed(self, progress: Progress) -> bool:
        """Report a stall once, and return whether its processes are to be killed for it."""
        if self._seconds is None or not self._has_begun(progress):
            return False
        now = time.monotonic()  # not the journal's clock: that may be of another machine
        if progress.step_time != self._step_time:
            self._step_time, self._seen = progress.step_time, now
            self._is_reported = False
        if self._is_reported or now - self._seen < self._seconds:
            return False
        self._is_reported = True
        after = f"step {progress.step}" if progress.step else "the start"
        logging.warning(
            "Stalled: %sno step has ended for %g s, after %s.%s\n%s",
            f"{self._name}: " if self._name else "",
            self._seconds,
            after,
            " Its processes are killed." if self._kills else "",
            self._stacks(self._run, self.attempt) or "No rank could say where it is.",
        )
        return self._kills

    def _has_begun(self, progress: Progress) -> bool:
        """Return whether the script of this attempt reports, and has not said that it ended."""
        begun = progress.attempt == self.attempt.number and progress.step_time is not None
        return begun and not progress.is_complete and progress.stop_reason is None


def _stacks(run: Path, attempt: Attempt) -> str:
    """Ask the ranks of an attempt on this machine where they are, and return what they wrote."""
    ours = {process.pid for process in survivors(run)}
    reports = read_reports(Layout(run).logs(attempt.number))
    asked = [report for report in reports if report.pid in ours and listens(report.pid)]
    return stacks_by(lambda: ask_for_stacks(r.pid for r in asked), run, attempt, asked)


def stacks_by(
    ask: Callable[[], None], run: Path, attempt: Attempt, reports: Sequence[RankReport]
) -> str:
    """Return what ranks write into their logs after `ask()`, once they stop writing."""
    logs = [
        (report, Layout(run).rank_log(attempt.number, report.rank))
        for report in reports
        if report.ended is None
    ]
    sizes = [(report, log, log.stat().st_size) for report, log in logs if log.exists()]
    ask()
    _wait_until_written({log: size for _, log, size in sizes})
    written = [(report, log, _written_since(log, size)) for report, log, size in sizes]
    return "\n".join(
        f"Rank {report.rank}, whose log is {log}:\n{text}" for report, log, text in written if text
    )


def _wait_until_written(sizes: Mapping[Path, int]) -> None:
    """Wait until all logs have become larger than they were, and have stopped growing."""
    began = quiet_since = time.monotonic()
    before = dict(sizes)
    while (now := time.monotonic()) < began + STACKS_SECONDS:
        grown = {log: log.stat().st_size for log in sizes}
        if grown != before:
            before, quiet_since = grown, now
        if now - quiet_since >= QUIET_SECONDS and all(grown[log] > sizes[log] for log in sizes):
            return
        time.sleep(0.1)


def _written_since(log: Path, size: int) -> str:
    """Return what is new in a log."""
    with log.open("rb") as file:
        file.seek(size)
        return file.read().decode("utf-8", errors="replace").rstrip()
