"""A script that stalls, as no step ends for too long: said once, with its ranks' Python stacks."""

import logging
import os
import re
import time
from pathlib import Path

from ..external.attempt import Attempt
from ..external.layout import Layout
from ..external.rank import STACKS_SIGNAL
from ..external.rank_report import RankReport, read_reports
from ..params import LaunchParams
from .processes import survivors
from .progress import Progress

STACKS_SECONDS = 2.0  # until a rank's stacks are in its log
_CAUGHT = re.compile(r"^SigCgt:\s*([0-9a-f]+)$", re.MULTILINE)


class StallWatch:
    """Looks at a run's progress, and at its ranks when there is none.

    Only scripts that report steps can stall: those that opened the journal in this attempt.

    Args:
        run: The run directory.
        attempt: What is running.
        launch: How long a step may take, and what to do then.
    """

    def __init__(self, run: Path, attempt: Attempt, launch: LaunchParams) -> None:
        self._run = run
        self._attempt = attempt
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
            "Stalled: no step has ended for %g s, after %s.%s\n%s",
            self._seconds,
            after,
            " Its processes are killed." if self._kills else "",
            stacks(self._run, self._attempt) or "No rank could say where it is.",
        )
        return self._kills

    def _has_begun(self, progress: Progress) -> bool:
        """Return whether the script of this attempt reports, and has not said that it ended."""
        begun = progress.attempt == self._attempt.number and progress.step_time is not None
        return begun and not progress.is_complete and progress.stop_reason is None


def stacks(run: Path, attempt: Attempt) -> str:
    """Ask the ranks of an attempt where they are, and return what they wrote into their logs."""
    ours = {process.pid for process in survivors(run)}
    layout = Layout(run)
    asked: list[tuple[RankReport, Path, int]] = []
    for report in read_reports(layout.logs(attempt.number)):
        log = layout.rank_log(attempt.number, report.rank)
        if report.ended is None and report.pid in ours and _listens(report.pid) and log.exists():
            asked.append((report, log, log.stat().st_size))
            os.kill(report.pid, STACKS_SIGNAL or 0)
    parts = []
    for report, log, size in asked:
        parts.append(f"Rank {report.rank}, whose log is {log}:\n{_written_since(log, size)}")
    return "\n".join(parts)


def _written_since(log: Path, size: int) -> str:
    """Return what is new in a log, once it stops growing."""
    deadline = time.monotonic() + STACKS_SECONDS
    before = size
    while time.monotonic() < deadline:
        time.sleep(0.1)
        now = log.stat().st_size
        if now == before > size:
            break
        before = now
    with log.open("rb") as file:
        file.seek(size)
        return file.read().decode("utf-8", errors="replace").rstrip()


def _listens(pid: int) -> bool:
    """Return whether a process catches the signal, which would end it otherwise."""
    try:
        text = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    except OSError:
        return False
    match = _CAUGHT.search(text)
    return bool(STACKS_SIGNAL and match and int(match[1], 16) >> (STACKS_SIGNAL - 1) & 1)
