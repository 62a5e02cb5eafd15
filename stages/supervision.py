"""Seeing a training run through: launch, follow, restart, and tell how each attempt ended."""

import logging
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..external.atomic import remove_leftovers
from ..external.attempt import Attempt, Outcome, end_attempt, start_attempt
from ..external.completion import complete_run
from ..external.environment import for_trainers
from ..external.journal import JournalTail
from ..external.layout import Layout
from ..external.progress import Progress
from ..external.rank_report import read_reports
from ..external.rundir import TrainingRun
from ..params import LaunchParams
from ..params.curifactory_api import Record
from .announcement import announce
from .failure import TrainerFailed, TrainerStopped, diagnose
from .interruption import Interruption
from .live_line import live_line
from .processes import TrainerProcesses, end_leftovers
from .python_path import python_path
from .report import report_training
from .saves import Saves
from .stall import StallWatch

USAGE_ERROR = 2
POLL_SECONDS = 0.1


def complete(
    record: Record,
    run: TrainingRun,
    command: Sequence[str],
    launch: LaunchParams,
    interruption: Interruption,
    saves: Saves | None = None,
) -> None:
    """Launch, and launch again after failures, until the run is complete or interrupted.

    The caller holds the run's lock. A script that reports through the SDK has `saves`.

    Raises:
        TrainerFailed: The program failed more often than `launch.max_restarts` allows.
        TrainerStopped: Somebody else asked the trainer processes to stop.
    """
    left = end_leftovers(run.path, grace_seconds=launch.grace_seconds)
    if left:
        logging.warning("Ended %d trainer processes that a killed experiment left behind.", left)
    remove_leftovers(run.path)
    if saves is not None and saves.complete_if_trained():
        report_training(record, run)
        return
    for restarts_left in range(launch.max_restarts, -1, -1):
        attempt = start_attempt(
            run.path, list(command), world_size=launch.processes_per_node, nodes=launch.nodes
        )
        announce("Launching", command)
        try:
            own = {} if saves is None else saves.prepare(attempt)
        except BaseException:
            end_attempt(run.path, attempt, exit_code=1, outcome="failed")
            raise
        exit_code, progress = _follow(record, run, attempt, launch, interruption, own)
        stopped = progress.stop_reason is not None and exit_code >= 0  # else it was killed
        if exit_code == 0 and not stopped:
            try:
                complete_run(run.path)
            except FileNotFoundError as error:
                end_attempt(run.path, attempt, exit_code=0, outcome="failed")
                raise no_model(run, attempt, error) from error
            end_attempt(run.path, attempt, exit_code=0, outcome="complete")
            report_training(record, run)
            return
        if stopped or interruption.number is not None:
            killed = exit_code < 0 and progress.stop_reason is None
            outcome: Outcome = "failed" if killed else "stopped"
            end_attempt(run.path, attempt, exit_code=exit_code, outcome=outcome)
            report_training(record, run)
            if killed:
                logging.warning(
                    "Killed at step %d, as its processes had not stopped by themselves (they are "
                    "given grace_seconds=%g). The same command goes on from the newest checkpoint.",
                    progress.step,
                    launch.grace_seconds,
                )
            else:
                logging.warning("Stopped at step %d. The same command goes on.", progress.step)
            if interruption.number is None:
                raise TrainerStopped(
                    f"The trainer processes were sent {progress.stop_reason} and stopped at step "
                    f"{progress.step}. Run the same experiment again to go on from there."
                )
            return
        end_attempt(run.path, attempt, exit_code=exit_code, outcome="failed")
        failure = diagnose(run.path, attempt, exit_code=exit_code)
        if restarts_left == 0 or _is_usage_error(run.path, attempt):
            report_training(record, run, failure=failure)
            raise failure
        logging.warning("%s", failure)
        logging.warning("Restarting; %d more restarts are allowed.", restarts_left - 1)


def _follow(
    record: Record,
    run: TrainingRun,
    attempt: Attempt,
    launch: LaunchParams,
    interruption: Interruption,
    own: Mapping[str, str],
) -> tuple[int, Progress]:
    """Launch one attempt and follow it to its end; returns the exit code and where it got."""
    layout = run.layout
    tail, progress = JournalTail(layout.journal), Progress()
    for event in tail.read():  # of the attempts before
        progress.update(event)
    progress.stop_reason = None  # of an attempt before, should this one not even begin
    environment = for_trainers(
        os.environ,
        run=run.path,
        attempt=attempt.number,
        extra={"PYTHONPATH": python_path(), **own, **launch.environment},
    )
    processes = TrainerProcesses(
        attempt.command,
        environment=environment,
        run=run.path,
        logs=layout.logs(attempt.number),
        launcher_log=layout.launcher_log(attempt.number),
    )
    stall = StallWatch(run.path, attempt, launch)
    name = record.params.name if record.params is not None else record.manager.current_stage_name
    try:
        with live_line(name, record.manager.map_progress) as line:
            while processes.poll() is None:
                for event in tail.read():
                    progress.update(event)
                line.show(progress)
                if stall.is_to_be_killed(progress):
                    break
                if interruption.number is not None:
                    processes.ask_to_stop()
                    interruption.wait(
                        launch.grace_seconds, until=lambda: processes.poll() is not None
                    )
                    break
                time.sleep(POLL_SECONDS)
            for event in tail.read():
                progress.update(event)
            line.show(progress)
    finally:
        exit_code = processes.end(grace_seconds=launch.grace_seconds)
    for event in tail.read():  # of ranks that outlived their launcher
        progress.update(event)
    return exit_code, progress


def _is_usage_error(run: Path, attempt: Attempt) -> bool:
    """Return whether the program refused its options: no restart can mend that."""
    reports = read_reports(Layout(run).logs(attempt.number))
    return any(report.exit_code == USAGE_ERROR for report in reports)


def no_model(run: TrainingRun, attempt: Attempt, error: FileNotFoundError) -> TrainerFailed:
    """Return the error for a trainer that ended well and left no model."""
    log = run.layout.rank_log(attempt.number, 0)
    return TrainerFailed(
        f"The trainer exited with code 0, but left no model at '{run.model_path}' ({error}). "
        f"A trainer with @trainer_options writes it in job.fit(). Its log: {log}",
        exit_code=0,
        rank=None,
        cause="no model",
        log=log,
        log_tail="",
    )
