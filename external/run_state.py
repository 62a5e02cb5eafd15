"""What became of a training run, or is becoming of it, told from its files alone.

Nothing is locked and nobody is asked: a run on another machine, a run of which only the folder is
left, and a run that is going on are looked at in the same way.
"""

import contextlib
import json
import platform
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from .attempt import read_attempts
from .file_tail import file_tail
from .job_record import read_job
from .layout import Layout
from .manifest import read_manifest
from .schema import UnreadableFile

Word = Literal["complete", "running", "stopped", "failed", "interrupted", "torn", "not begun"]

SILENT_SECONDS = 30.0
"""How long a run whose holder is gone may be silent before it counts as interrupted."""
SILENT_JOB_SECONDS = 3600.0
"""So for a Slurm job, which goes on without whoever submitted it."""


@dataclass(frozen=True)
class RunState:
    """A word and a sentence; `is_over` says that nothing more comes unless somebody starts it."""

    word: Word
    sentence: str

    @property
    def is_over(self) -> bool:
        """Whether nobody is training, nor about to."""
        return self.word not in ("running", "not begun")


@dataclass(frozen=True)
class _Holder:
    pid: int
    host: str
    since: float


def run_state(run: Path, *, now: float | None = None) -> RunState:
    """Return what is known of the run directory `run`; never raises for what is torn in it.

    Args:
        run: The run directory, which may be missing.
        now: The time, in seconds since 1970.
    """
    state = _look(run, now)
    if state.is_over and state.word != "complete":
        # One that ended between two of its files being read seems lost: its end is all there now.
        state = _look(run, now)
    return state


def _look(run: Path, now: float | None) -> RunState:
    if not run.is_dir():
        return RunState("not begun", f"There is no run '{run}' (seen from '{Path.cwd()}').")
    try:
        manifest = read_manifest(run)
        return RunState("complete", f"Complete: {manifest.step} steps, {manifest.epoch} epochs.")
    except UnreadableFile as error:
        return RunState("torn", str(error))
    except FileNotFoundError:
        pass
    attempts = read_attempts(run)
    holder = _read_holder(run)
    here = holder is not None and holder.host == platform.node()
    alive = here and holder is not None and _is_alive(holder.pid, since=holder.since)
    if not attempts:
        if not alive and Layout(run).journal.exists():
            return _logged(run, time.time() if now is None else now)
        word: Word = "running" if alive else "not begun"
        return RunState(word, f"'{run}' has no attempt yet.")
    last = attempts[-1]
    if last.outcome is not None and not alive:
        if last.outcome == "complete":
            return RunState("torn", f"'{run}' was complete, but its manifest.json is missing.")
        if last.outcome == "stopped":
            return RunState("stopped", "It was asked to stop; the same command goes on from there.")
        return RunState(
            "failed",
            f"Attempt {last.number} ended with code {last.exit_code}; the same command goes on "
            "from the newest checkpoint.",
        )
    silent = (time.time() if now is None else now) - _last_sign(run, last.started)
    allowed = SILENT_SECONDS if read_job(run) is None else SILENT_JOB_SECONDS
    if not alive and abs(silent) > allowed and (here or holder is None):
        return RunState(
            "interrupted",
            f"Attempt {last.number} ended without a word, {_when(silent)}; the same command "
            "goes on from the newest checkpoint.",
        )
    where = f"on {last.host}, {last.world_size} processes"
    return RunState("running", f"Attempt {last.number} {where}; last sign {_ago(silent)} ago.")


def _logged(run: Path, now: float) -> RunState:
    """Return what became of a run that nobody launched: a Trainer's logger alone wrote it."""
    status = _last_end(Layout(run).journal)
    silent = now - _last_sign(run, 0.0)
    if status == "success":
        return RunState("complete", "Logged by a Trainer, which ended well.")
    if status is not None:
        return RunState("failed", f"Logged by a Trainer, which ended as {status!r}.")
    if abs(silent) <= SILENT_SECONDS:
        return RunState("running", f"A Trainer logs here; last sign {_ago(silent)} ago.")
    return RunState("interrupted", f"Its Trainer ended without a word, {_when(silent)}.")


def _last_end(journal: Path) -> str | None:
    """Return how the last attempt ended as its logger wrote it; None if it has not yet."""
    lines = file_tail(journal).splitlines()  # the last ones alone: who follows a run asks often
    for line in reversed(lines):
        with contextlib.suppress(ValueError, TypeError, AttributeError):  # a torn line
            event = json.loads(line)
            if event.get("event") in ("attempt", "end"):
                status = event.get("status")
                return None if status is None else str(status)
    return None


def _read_holder(run: Path) -> _Holder | None:
    """Return who said that it trains here; None if nobody did, or it went away in order."""
    path = run / "lock-holder.json"
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        return _Holder(int(record["pid"]), str(record["host"]), path.stat().st_mtime)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _is_alive(pid: int, *, since: float) -> bool:
    """Return whether the process that wrote something at `since` lives, not one of its number."""
    import psutil

    try:
        return bool(psutil.Process(pid).create_time() <= since + 1)
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:
        return True


def _last_sign(run: Path, started: float) -> float:
    try:
        return max(started, Layout(run).journal.stat().st_mtime)
    except OSError:
        return started


def _when(silent: float) -> str:
    """Return when the last sign was; one yet to come was written before a clock was set back."""
    return f"{_ago(silent)} ago" if silent >= 0 else "at a time yet to come by this clock"


def _ago(seconds: float) -> str:
    seconds = max(0, round(seconds))
    if seconds < 120:
        return f"{seconds} s"
    return f"{seconds // 60} min" if seconds < 7200 else f"{seconds // 3600} h"
