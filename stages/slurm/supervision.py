"""Seeing a run through that Slurm trains: submit or find its job, follow it, tell how it ended."""

import logging
import shlex
import time
from pathlib import Path

from ...external.attempt import Outcome, end_attempt, next_attempt
from ...external.rundir import TrainingRun
from ...params import LaunchParams, SlurmParams
from ...params.curifactory_api import Record
from ..announcement import announce
from ..failure import TrainerFailed, TrainerStopped, diagnose, log_tail
from ..interruption import Interruption
from ..live_line import live_line
from ..report import report_training
from ..supervision import no_model
from .following import TICK_SECONDS, Followed, Follower
from .job import AllocatedJob, Job, SubmittedJob, start_job
from .job_watch import JobWatch
from .queue import ENDED, UNKNOWN, Ending, ending

USAGE_ERROR = 2
KILLED = 137  # as shells have it: 128 + SIGKILL
CANCEL_SECONDS = 60.0  # Slurm's KillWait and more
AGAIN = "Run the same experiment again to go on from there."


class JobNotSubmitted(RuntimeError):
    """The script of a job was written, and nothing else was asked for; the message says where."""


def complete_by_slurm(
    record: Record,
    run: TrainingRun,
    launch: LaunchParams,
    slurm: SlurmParams,
    interruption: Interruption,
) -> None:
    """Have the script in the run directory run, again after failures, until the run is complete.

    The caller holds the run's lock.

    Raises:
        TrainerFailed: It failed more often than `launch.max_restarts` allows.
        TrainerStopped: Somebody else asked the job to stop, or cancelled it.
        JobNotSubmitted: `slurm.submit` is False and no job trains here.
        SlurmUnreachable: Slurm did not answer, or refused the script.
    """
    restarts = launch.max_restarts if slurm.min_nodes is None else 0  # else torchrun's own
    for restarts_left in range(restarts, -1, -1):
        followed = start(run, launch, slurm)
        _follow(record, followed, launch, slurm, interruption)
        try:
            check_end(followed, interrupted=interruption.number is not None)
        except TrainerFailed as failure:
            if restarts_left == 0 or failure.exit_code == USAGE_ERROR:
                report_training(record, run, failure=failure)
                raise
            logging.warning("%s", failure)
            logging.warning("Restarting; %d more restarts are allowed.", restarts_left - 1)
        except TrainerStopped:
            report_training(record, run)
            raise
        else:
            report_training(record, run)
            return


def start(run: TrainingRun, launch: LaunchParams, slurm: SlurmParams) -> Followed:
    """Return the run with a job that trains it, found or submitted.

    Raises:
        JobNotSubmitted: There is none, and none was wanted.
    """
    first = next_attempt(run.path)
    job = start_job(run.path, launch, slurm)
    if job is None:
        raise not_submitted(run.layout.sbatch)
    return Followed(run, job, first=first if isinstance(job, AllocatedJob) else 0)


def not_submitted(script: Path) -> JobNotSubmitted:
    """Return the error that says what to do with a script that was only written."""
    words = ["sbatch", str(script.resolve())]
    announce("Written, not submitted", words)
    return JobNotSubmitted(
        f"The job's script is written, and not submitted, as submit is False. Submit it: "
        f"{shlex.join(words)} Then run the same experiment: it follows the job, and goes on when "
        "the run is complete."
    )


def stop(follower: Follower, interruption: Interruption, grace: float) -> None:
    """Let the ranks of all jobs save for `grace` seconds, and cancel what is left then."""
    going = [each for each in follower.followed if not each.has_ended]
    for each in going:
        each.job.ask_to_stop()
    follower.hurry(grace + CANCEL_SECONDS)
    interruption.wait(grace, until=follower.has_ended)
    for each in going:
        if not each.has_ended:
            each.job.cancel()
    interruption.wait(CANCEL_SECONDS, until=follower.has_ended)


def check_end(followed: Followed, *, interrupted: bool) -> None:
    """Return if the run is complete, or was interrupted by us; else say how its job ended.

    Raises:
        TrainerFailed: It failed.
        TrainerStopped: Somebody else asked the job to stop, or cancelled it.
    """
    run, job = followed.run, followed.job
    if run.is_complete:
        return
    attempt = followed.attempt()
    end = Ending(followed.state) if followed.state in ENDED else _ending(job)
    state = end.state
    killed_as = None
    if attempt is not None and (attempt.outcome is None or followed.stalled):  # it was killed
        killed_as = f"{job.describe()} ending as {end}"
        saved = followed.progress.stop_reason is not None
        asked = interrupted or saved or (state == "CANCELLED" and not followed.stalled)
        if followed.stalled:
            killed_as = "a step that did not end, and was killed for it"
        outcome: Outcome = "stopped" if asked else "failed"
        attempt = end_attempt(run.path, attempt, exit_code=KILLED, outcome=outcome)
    if interrupted:
        logging.warning("Stopped at step %d. The same command goes on.", followed.progress.step)
        return
    name = job.describe().capitalize()
    if attempt is None:
        if state == "CANCELLED":
            raise TrainerStopped(f"{name} was cancelled before it began. {AGAIN}")
        raise _never_began(followed, f"{name} ended as {end} before its script began")
    if attempt.outcome == "stopped":
        raise TrainerStopped(
            f"{name} was asked to stop and did, at step {followed.progress.step}. {AGAIN} "
            f"What its script said: {_log(followed)}"
        )
    if attempt.exit_code == 0:
        raise no_model(run, attempt, FileNotFoundError(run.model_path))
    exit_code = 1 if attempt.exit_code is None else attempt.exit_code
    raise diagnose(run.path, attempt, exit_code=exit_code, killed_as=killed_as)


def _follow(
    record: Record,
    followed: Followed,
    launch: LaunchParams,
    slurm: SlurmParams,
    interruption: Interruption,
) -> None:
    """Follow one job to its end, with a live line."""
    follower = Follower([followed], poll_seconds=slurm.poll_seconds)
    watch = JobWatch(followed, launch)
    name = record.params.name if record.params is not None else record.manager.current_stage_name
    with live_line(name, record.manager.map_progress) as line:
        while not follower.has_ended():
            line.show(followed.progress)
            if watch.cancels():
                follower.hurry(CANCEL_SECONDS)
            if interruption.number is not None:
                stop(follower, interruption, launch.grace_seconds)
                break
            time.sleep(TICK_SECONDS)
        followed.read()
        line.show(followed.progress)


def _ending(job: Job) -> Ending:
    return ending(job.record) if isinstance(job, SubmittedJob) else Ending(UNKNOWN)


def _never_began(followed: Followed, cause: str) -> TrainerFailed:
    log = _log(followed)
    tail = log_tail(log)
    lines = [f"{cause}. Its log: {log}", *(f"  | {line}" for line in tail.splitlines())]
    return TrainerFailed(
        "\n".join(lines), exit_code=1, rank=None, cause=cause, log=log, log_tail=tail
    )


def _log(followed: Followed) -> Path:
    """Return the newest log of a job's script in the run directory."""
    folder = followed.run.path / "slurm"
    logs = sorted(folder.glob("job-*.log"), key=lambda path: path.stat().st_mtime)
    return logs[-1] if logs else folder
