"""A trainer that failed: who failed first, with what, where its log is and what is left."""

import os
import re
import shlex
import signal
from dataclasses import dataclass
from pathlib import Path

from ..external.attempt import Attempt
from ..external.checkpoint import list_checkpoints
from ..external.file_tail import file_tail
from ..external.layout import Layout
from ..external.rank_report import RankReport, read_reports

TAIL_LINES = 30

_FEW_BYTES = 1 << 16  # too few for a checkpoint, and for a log that says so

_EXIT_CODE = re.compile(r"rank\s*: (\d+) \(local_rank: \d+\)\s*\n\s*exitcode\s*: (-?\d+)")


class TrainerFailed(RuntimeError):
    """The trainer processes ended without a complete run; the message is the whole story.

    Attributes:
        exit_code: Of the launcher.
        rank: Who failed first, None if that cannot be told.
        cause: Its exception, or how it was killed, in one line.
        log: The path of its log.
        log_tail: The last lines of that log.
    """

    def __init__(
        self,
        message: str,
        *,
        exit_code: int,
        rank: int | None,
        cause: str,
        log: Path,
        log_tail: str,
    ) -> None:
        super().__init__(message)
        self.exit_code = exit_code
        self.rank = rank
        self.cause = cause
        self.log = log
        self.log_tail = log_tail


class TrainerStopped(RuntimeError):
    """The trainer processes were asked to stop, by somebody else than this experiment, and did."""


@dataclass(frozen=True)
class _Verdict:
    rank: int | None
    host: str
    cause: str
    log: Path


def diagnose(
    run: Path, attempt: Attempt, *, exit_code: int, killed_as: str | None = None
) -> TrainerFailed:
    """Return the error for a failed attempt, from what its ranks and its launcher left.

    Args:
        run: The run directory.
        attempt: What failed.
        exit_code: Of the launcher.
        killed_as: How somebody else ended all of it, such as "job 4711 ending as OUT_OF_MEMORY".
    """
    layout = Layout(run)
    reports = read_reports(layout.logs(attempt.number))
    if exit_code < 0:
        launcher_log = layout.launcher_log(attempt.number)
        verdict = _Verdict(None, attempt.host, _death(exit_code), launcher_log)
    elif killed_as is not None and not any(report.error for report in reports):
        verdict = _Verdict(None, attempt.host, killed_as, layout.launcher_log(attempt.number))
    else:
        verdict = _first_failure(layout, attempt, reports)
    tail = log_tail(verdict.log)
    who = "the launcher" if verdict.rank is None else f"rank {verdict.rank} on {verdict.host}"
    lines = [
        f"Trainer exited with code {exit_code}: {who} failed first with {verdict.cause}. "
        f"Its log: {verdict.log}",
        *(f"  | {line}" for line in tail.splitlines()),
    ]
    victims = [r.rank for r in reports if r.error and r.error.is_victim and r.rank != verdict.rank]
    if victims:
        lines.append(f"Lost their connection to it: rank {', '.join(map(str, victims))}.")
    if (left := _bytes_left(run)) < _FEW_BYTES:
        lines.append(f"The disk of '{run}' is full: {left} bytes are left. Make room there first.")
    checkpoints = list_checkpoints(layout.checkpoints)
    if checkpoints:
        lines.append(f"Last good checkpoint: {checkpoints[-1].path} (step {checkpoints[-1].step}).")
    lines.append("To go on, run the experiment again; the trainer alone:")
    lines.append(f"  {shlex.join(attempt.command)}")
    return TrainerFailed(
        "\n".join(lines),
        exit_code=exit_code,
        rank=verdict.rank,
        cause=verdict.cause,
        log=verdict.log,
        log_tail=tail,
    )


def log_tail(log: Path) -> str:
    """Return the last lines of a log; empty if there is none."""
    try:
        # A log may have gigabytes, and a line of it as well.
        text = file_tail(log).decode("utf-8", errors="replace")
    except OSError:
        return ""
    return "\n".join(_short(line, 1000) for line in text.splitlines()[-TAIL_LINES:])


def _first_failure(layout: Layout, attempt: Attempt, reports: list[RankReport]) -> _Verdict:
    """Find who failed first: an exception of its own, a death, then a lost connection."""
    failed = sorted(
        (report for report in reports if report.error is not None),
        key=lambda report: report.ended or 0.0,
    )
    for report in failed:
        if report.error is not None and not report.error.is_victim:
            return _of_exception(layout, attempt, report)
    launcher_log = layout.launcher_log(attempt.number)
    exit_codes = _exit_codes(launcher_log)
    for report in reports:
        if report.ended is None:  # it had no time to say why
            cause = _death(exit_codes.get(report.rank))
            log = layout.rank_log(attempt.number, report.rank)
            return _Verdict(report.rank, report.host, cause, log)
    if failed:
        return _of_exception(layout, attempt, failed[0])
    return _Verdict(None, attempt.host, "no rank reporting why", launcher_log)


def _of_exception(layout: Layout, attempt: Attempt, report: RankReport) -> _Verdict:
    error = report.error
    cause = "" if error is None else f"{error.type}: {_one_line(error.message)}"
    log = layout.rank_log(attempt.number, report.rank)
    return _Verdict(report.rank, report.host, cause, log)


def _bytes_left(run: Path) -> int:
    """Return how much can be written beside a run, 0 where no more files can be made."""
    about = os.statvfs(run)
    no_names = about.f_files > 0 and about.f_favail == 0
    return 0 if no_names else about.f_bavail * about.f_frsize


def _death(exit_code: int | None) -> str:
    if exit_code is None:
        return "a sudden death that nobody reported"
    if exit_code < 0:
        return f"{signal.Signals(-exit_code).name} (killed from outside, or out of memory)"
    return f"exit code {exit_code}"


def _exit_codes(launcher_log: Path) -> dict[int, int]:
    """Return the exit codes by rank that torchrun's own summary tells."""
    try:
        text = launcher_log.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return {}
    return {int(rank): int(code) for rank, code in _EXIT_CODE.findall(text)}


def _one_line(text: str) -> str:
    return _short(text.strip().splitlines()[0] if text.strip() else "", 300)


def _short(line: str, length: int) -> str:
    return line if len(line) <= length else line[: length - 1] + "…"
