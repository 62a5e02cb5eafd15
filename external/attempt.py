"""One launch of the trainer processes within a run: `attempts/<number>.json`.

    {"schema": 1, "number": 0, "command": ["python", "-m", "torch.distributed.run", …],
     "world_size": 2, "nodes": 1, "host": "node-a", "started": 1763719200.1,
     "ended": 1763719260.9, "exit_code": 0, "outcome": "complete", "commit": "0f2e… (modified)",
     "job": "4711"}

`outcome` is "complete", "stopped" (it was asked to), "failed", or None while it
runs and for ever when its launcher was killed. `job` is Slurm's id, None without Slurm.
"""

import dataclasses
import logging
import platform
import re
import subprocess
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from .atomic import write_json
from .layout import Layout
from .schema import UnreadableFile, read_record

SCHEMA = 1

_PATH = re.compile(r"--\w+[_-](dir|path)=|--[\w-]+=/")

Outcome = Literal["complete", "stopped", "failed"]


@dataclass(frozen=True)
class Attempt:
    """The record of one launch; times are seconds since 1970, `exit_code` is the launcher's."""

    number: int
    command: list[str]
    world_size: int
    nodes: int
    host: str
    started: float
    commit: str | None
    ended: float | None = None
    exit_code: int | None = None
    outcome: Outcome | None = None
    job: str | None = None


def start_attempt(
    run: Path,
    command: list[str],
    *,
    world_size: int,
    nodes: int,
    code: Path | None = None,
    job: str | None = None,
) -> Attempt:
    """Record a new attempt in the run directory, with the next free number.

    Args:
        run: The run directory; the caller holds its lock.
        command: The words that were launched.
        world_size: Processes over all nodes.
        nodes: Machines.
        code: A folder of the user's code, whose git commit is recorded.
        job: The id of the Slurm job.
    """
    attempt = Attempt(
        number=next_attempt(run),
        command=command,
        world_size=world_size,
        nodes=nodes,
        host=platform.node(),
        started=time.time(),
        commit=code_commit(code or Path.cwd()),
        job=job,
    )
    _write(run, attempt)
    return attempt


def end_attempt(run: Path, attempt: Attempt, *, exit_code: int, outcome: Outcome) -> Attempt:
    """Record how an attempt ended; where the disk has no room for that, a warning says so."""
    ended = dataclasses.replace(attempt, ended=time.time(), exit_code=exit_code, outcome=outcome)
    try:
        _write(run, ended)
    except OSError as error:  # what ended the attempt is not to be lost behind this
        logging.getLogger().warning(
            "How attempt %d ended was not recorded: %s", ended.number, error
        )
    return ended


def read_attempts(run: Path) -> list[Attempt]:
    """Return the attempts of a run in their order; one whose record is torn is left out."""
    found = []
    for path in Layout(run).attempts.glob("*.json"):
        try:
            record = read_record(path, newest=SCHEMA)
            record.pop("schema")
            found.append(Attempt(**record))
        except (UnreadableFile, TypeError):
            continue
    return sorted(found, key=lambda attempt: attempt.number)


def not_told(run: Path, words: Iterable[str]) -> list[str]:
    """Return those options among `words` that the newest attempt was not told: `--width=16`.

    Paths are let be: a project may be moved. Without an attempt there is none.
    """
    attempts = read_attempts(run)
    if not attempts:
        return []
    told = set(_joined(attempts[-1].command))
    return [word for word in _joined(words) if word not in told and not _PATH.match(word)]


def _joined(words: Iterable[str]) -> list[str]:
    """Return `words` with `--name value` as `--name=value`."""
    joined: list[str] = []
    for word in words:
        before = joined[-1] if joined else ""
        if before.startswith("--") and "=" not in before and not word.startswith("--"):
            joined[-1] = f"{before}={word}"
        else:
            joined.append(word)
    return joined


def next_attempt(run: Path) -> int:
    """Return the number of the next attempt, counting those whose record is torn as well."""
    numbers = [
        int(path.stem) for path in Layout(run).attempts.glob("*.json") if path.stem.isdigit()
    ]
    return max(numbers, default=-1) + 1


def code_commit(folder: Path) -> str | None:
    """Return the git commit of `folder`, marked if files differ from it; None outside git."""
    try:
        commit = _git(folder, "rev-parse", "HEAD")
        changed = _git(folder, "status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.SubprocessError):
        return None
    return f"{commit} (modified)" if changed else commit


def _git(folder: Path, *words: str) -> str:
    result = subprocess.run(
        ["git", "-C", str(folder), *words], capture_output=True, text=True, check=True, timeout=10
    )
    return result.stdout.strip()


def _write(run: Path, attempt: Attempt) -> None:
    path = Layout(run).attempts / f"{attempt.number}.json"
    write_json(path, {"schema": SCHEMA, **dataclasses.asdict(attempt)})
