"""What the script of a Slurm job asks Python on its first node: to begin an attempt, and to end it.

    python -m curitorch.external.slurm_job begin sbatch|here NODES PROCESSES [SAVES]
    export CURITORCH_ATTEMPT=3
    python -m curitorch.external.slurm_job end EXIT_CODE [pause|stop|lost]
    stopped

The job keeps the run's books by itself, and completes the run: the experiment that submitted it
may be gone by then. `end` prints what became of the attempt:

    complete    the run is
    stopped     the ranks saved and stopped, as they were asked to
    stuck       so, but neither this attempt nor the one before got a step further
    lost        a node died, and no rank failed by itself: the job is to begin again
    failed
"""

import json
import os
import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ..params.checkpoint import CheckpointParams
from .atomic import remove_leftovers
from .attempt import Attempt, end_attempt, read_attempts, start_attempt
from .completion import complete_run
from .environment import ATTEMPT, CHECKPOINT, PROCESSED_ITERS, RUN_DIR
from .journal import Event, read_journal
from .layout import Layout
from .rank_report import read_reports
from .stop import EXIT_CODES
from .stores.store import StoreError

SCRIPT = "job.sbatch"

LOADER_TERMINATED = "is killed by signal: Terminated"
"""What a rank raises when Slurm signals all processes of a step, its loader's workers as well."""


@dataclass(frozen=True)
class _Way:
    """How far an attempt got: the step that it began at and its last, and whether it stopped."""

    began: int = 0
    step: int = 0
    stopped: bool = False


def begin(
    run: Path, *, nodes: int, processes: int, saves: Path | None = None, here: bool = False
) -> dict[str, str]:
    """Record a new attempt; returns what its processes find in their environment.

    Args:
        run: The run directory.
        nodes: Machines.
        processes: Trainer processes on each.
        saves: The directory that a script with the SDK saves in; its newest checkpoint is put
            there.
        here: It runs in an allocation that was there before.

    Raises:
        StoreError: The store did not answer, or its newest checkpoint is for another curitorch.
        OSError: The disk is full.
        ValueError: The settings do not fit the store, or a sidecar was altered.
    """
    remove_leftovers(run)
    script = str(run / SCRIPT)
    command = ["bash", script, "here"] if here else ["sbatch", script]
    attempt = start_attempt(
        run, command, world_size=nodes * processes, nodes=nodes, job=job_id(os.environ)
    )
    Layout(run).logs(attempt.number).mkdir(parents=True, exist_ok=True)
    variables = {ATTEMPT: str(attempt.number)}
    if saves is not None:
        try:
            variables[PROCESSED_ITERS] = str(_restore(run, attempt, saves))
        except (StoreError, OSError, ValueError) as error:
            end_attempt(run, attempt, exit_code=1, outcome="failed")
            with Layout(run).launcher_log(attempt.number).open("a", encoding="utf-8") as log:
                log.write(f"{error}\n")  # where an experiment looks for what went wrong
            raise
    return variables


def job_id(environ: Mapping[str, str]) -> str | None:
    """Return the id of the job that this process is in, as `4711` or `4711_3`; None outside."""
    if "SLURM_ARRAY_JOB_ID" in environ:
        return f"{environ['SLURM_ARRAY_JOB_ID']}_{environ['SLURM_ARRAY_TASK_ID']}"
    return environ.get("SLURM_JOB_ID")


def end(run: Path, attempt: Attempt, *, exit_code: int, asked: str) -> str:
    """Record how an attempt ended, complete the run if it did, and return what became of it.

    Args:
        run: The run directory.
        attempt: What ended.
        exit_code: Of srun.
        asked: "pause" or "stop" if the script passed that on to the ranks; "lost" if Slurm has
            lost a node meanwhile, else "".
    """
    way = _way(run, attempt.number)
    if exit_code == 0 and not way.stopped:
        try:
            complete_run(run)
        except FileNotFoundError:  # no model: the stage says so
            end_attempt(run, attempt, exit_code=0, outcome="failed")
            return "failed"
        end_attempt(run, attempt, exit_code=0, outcome="complete")
        return "complete"
    if way.stopped or (asked in ("pause", "stop") and not _failed_by_itself(run, attempt)):
        end_attempt(run, attempt, exit_code=exit_code, outcome="stopped")
        before = _way(run, attempt.number - 1)
        stuck = attempt.number > 0 and way.step <= way.began and before.step <= before.began
        return "stuck" if stuck else "stopped"
    end_attempt(run, attempt, exit_code=exit_code, outcome="failed")
    return "lost" if asked == "lost" and not _failed_by_itself(run, attempt) else "failed"


def _way(run: Path, number: int) -> _Way:
    """Read off the journal how far attempt `number` got."""
    ours: list[Event] = []
    current = -1
    for event in read_journal(Layout(run).journal):
        if event["event"] == "attempt":
            current = int(event["attempt"])
        if current == number:
            ours.append(event)
    if not ours:
        return _Way()
    began = int(ours[0]["resume_step"])
    steps = [int(event["step"]) for event in ours if event["event"] in ("step", "checkpoint")]
    stopped = any(event["event"] == "stop" for event in ours)
    return _Way(began=began, step=max(steps, default=began), stopped=stopped)


def _failed_by_itself(run: Path, attempt: Attempt) -> bool:
    """Return whether a rank raised what is neither a stop nor a lost connection."""
    reports = read_reports(Layout(run).logs(attempt.number))
    failed = [r.error for r in reports if r.exit_code not in EXIT_CODES.values()]
    return any(
        error is not None and not error.is_victim and LOADER_TERMINATED not in error.message
        for error in failed
    )


def _restore(run: Path, attempt: Attempt, saves: Path) -> int:
    from .sdk.managed import store_of
    from .sdk.restore import restore

    policy = CheckpointParams(**json.loads(os.environ.get(CHECKPOINT, "{}")))
    aside = run / "saves-set-aside" / f"attempt-{attempt.number}"
    with store_of(policy, Layout(run)) as store:
        return restore(store, saves, aside=aside)


def main(words: list[str]) -> None:
    """Do what a script asks; see the module's docstring."""
    run = Path(os.environ[RUN_DIR])
    if words[0] == "begin":
        how, nodes, processes, *saves = words[1:]
        try:
            variables = begin(
                run,
                nodes=int(nodes),
                processes=int(processes),
                saves=Path(saves[0]) if saves else None,
                here=how == "here",
            )
        except (StoreError, OSError, ValueError) as error:
            sys.exit(str(error))
        for name, value in variables.items():
            print(f"export {name}={shlex.quote(value)}")  # noqa: T201
    else:
        number = int(os.environ[ATTEMPT])
        [attempt] = [each for each in read_attempts(run) if each.number == number]
        exit_code, *asked = words[1:]
        print(end(run, attempt, exit_code=int(exit_code), asked="".join(asked)))  # noqa: T201


if __name__ == "__main__":
    main(sys.argv[1:])
