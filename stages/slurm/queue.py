"""Slurm's own commands, and what they say of jobs: sbatch, squeue, scancel; sacct as a fallback."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ...external.job_record import JobRecord

ENDED = frozenset(
    {
        *("BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL"),
        *("OUT_OF_MEMORY", "PREEMPTED", "REVOKED", "TIMEOUT"),
    }
)
COMES_BACK = frozenset({"NODE_FAIL", "PREEMPTED", "BOOT_FAIL"})
"""States that a job may pass through on its way back into the queue."""

RUNS = frozenset({"RUNNING", "SIGNALING", "SUSPENDED", "STOPPED"})
"""SIGNALING: a signal is on its way to it, such as that before its time limit."""

UNKNOWN = "UNKNOWN"
TIMEOUT_SECONDS = 60.0

_FORMAT = "%F|%K|%T|%j|%r"


class SlurmUnreachable(RuntimeError):
    """A command of Slurm's is not there, or ended badly; the message has what it said."""


@dataclass(frozen=True)
class QueuedJob:
    """A job as the queue knows it; `reason` is why it waits."""

    job_id: str
    index: int | None
    state: str
    name: str
    reason: str = ""

    @property
    def runs(self) -> bool:
        """Whether its script does: it can be asked to stop."""
        return self.state in RUNS

    @property
    def has_ended(self) -> bool:
        """Whether it is over, with nothing of it left running."""
        return self.state in ENDED


def submit(script: Path, *, environment: Mapping[str, str], options: Iterable[str] = ()) -> str:
    """Submit a script and return the job's id.

    Raises:
        SlurmUnreachable: sbatch refused it.
    """
    words = ["sbatch", "--parsable", *options, str(script)]
    return _run(words, environment=environment).strip().split(";")[0]


def look(
    jobs: Iterable[JobRecord], *, timeout_seconds: float = TIMEOUT_SECONDS
) -> dict[JobRecord, QueuedJob | None]:
    """Return what the queue says of each job, by one command; None where it knows none.

    A job that ended a while ago (`MinJobAge`, mostly 5 minutes) is no longer known.

    Args:
        jobs: Jobs of this user.
        timeout_seconds: How long squeue may take; without a cluster it tries for a minute.

    Raises:
        SlurmUnreachable: squeue did not answer.
    """
    wanted = list(jobs)
    names = sorted({job.name for job in wanted})
    words = ["squeue", "--noheader", "--array", "--me", "--states=all", f"--format={_FORMAT}"]
    text = _run([*words, f"--name={','.join(names)}"], timeout_seconds=timeout_seconds)
    found = parse_queue(text)
    return {job: _of(job, found) for job in wanted}


def parse_queue(text: str) -> list[QueuedJob]:
    """Read squeue's lines in our format, oldest job first."""
    jobs = []
    for line in text.splitlines():
        parts = line.strip().split("|", 4)
        if len(parts) != 5:
            continue
        job_id, index, state, name, reason = parts
        number = int(index) if index.isdecimal() else None
        jobs.append(QueuedJob(job_id, number, state, name, reason))
    return sorted(jobs, key=lambda job: int(job.job_id) if job.job_id.isdecimal() else 0)


@dataclass(frozen=True)
class Ending:
    """How a job ended; `code` and `signal` are those of its script, None where nobody knows."""

    state: str
    code: int | None = None
    signal: int | None = None

    def __str__(self) -> str:
        said = f" by signal {self.signal}" if self.signal else ""
        return f"{self.state} with exit code {self.code}{said}" if self.code or said else self.state


def ending(job: JobRecord) -> Ending:
    """Return how a job ended that the queue no longer knows, UNKNOWN where nobody does.

    Asked are the accounting, and without one the log of completed jobs (`sacct -c`), which knows
    no members of arrays.
    """
    if not job.selector or shutil.which("sacct") is None:
        return Ending(UNKNOWN)
    words = ["sacct", "-j", job.selector, "-n", "-P", "-o", "State,ExitCode"]
    for source in ["-X", "-c"] if job.index is None else ["-X"]:
        try:
            found = parse_accounting(_run([*words, source]))
        except SlurmUnreachable:  # a cluster without it
            continue
        if found is not None:
            return found
    return Ending(UNKNOWN)


def parse_accounting(text: str) -> Ending | None:
    """Read sacct's last line: `CANCELLED by 1000|0:15`; None if it says nothing of the end."""
    lines = re.findall(r"^\s*([A-Z_]+)[^|\n]*(?:\|(\d+):(\d+))?", text, re.MULTILINE)
    if not lines or lines[-1][0] not in ENDED:
        return None
    state, code, number = lines[-1]
    return Ending(state, int(code), int(number)) if code else Ending(state)


def signal_batch(job: JobRecord, name: str) -> None:
    """Send a signal to the job's script alone; does nothing if the job has ended."""
    _cancel("--batch", f"--signal={name}", job.selector)


def cancel(job: JobRecord) -> None:
    """Cancel a job, waiting or running: Slurm kills it after its KillWait."""
    _cancel(job.selector)


def is_in_allocation(environ: Mapping[str, str] = os.environ) -> bool:
    """Return whether this process runs in a job or `salloc`, whose nodes can be used."""
    return "SLURM_JOB_ID" in environ and "SLURM_JOB_NODELIST" in environ


def _cancel(*words: str) -> None:
    subprocess.run(
        ["scancel", "--quiet", *words],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=TIMEOUT_SECONDS,
        check=False,
    )


def _of(job: JobRecord, found: Iterable[QueuedJob]) -> QueuedJob | None:
    """Return the newest entry of a job; before it was submitted, that of its name."""
    matches = [
        each
        for each in found
        if each.name == job.name
        and each.index == job.index
        and (job.job_id is None or each.job_id == job.job_id)
    ]
    return matches[-1] if matches else None


def _run(
    words: list[str],
    *,
    environment: Mapping[str, str] | None = None,
    timeout_seconds: float = TIMEOUT_SECONDS,
) -> str:
    try:
        done = subprocess.run(
            words,
            env=None if environment is None else dict(environment),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_seconds,
            check=False,
        )
    except FileNotFoundError as error:
        raise SlurmUnreachable(
            f"There is no {words[0]} here. Run the experiment where Slurm's commands are, a login "
            "node say, or write launcher='local'."
        ) from error
    except subprocess.TimeoutExpired as error:
        raise SlurmUnreachable(
            f"{words[0]} did not answer for {timeout_seconds:g} s. Try again."
        ) from error
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip()
        raise SlurmUnreachable(f"{words[0]} ended with {done.returncode}: {said}")
    return done.stdout
