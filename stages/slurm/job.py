"""The job that trains a run: found again in the queue, submitted, or run in our own allocation."""

import logging
import os
import signal
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol

from ...external import leash
from ...external.job_record import JobRecord, read_job, write_job
from ...external.slurm_job import SCRIPT, job_id
from ...params import LaunchParams, SlurmParams
from . import queue
from .script import job_name

KILL_SECONDS = 10.0
SCRIPT_SECONDS = 5.0


class Job(Protocol):
    """A job that somebody follows; `id` is Slurm's, such as 4711 or 4711_3."""

    @property
    def id(self) -> str:
        """Slurm's id of it."""

    def describe(self) -> str:
        """Return what to call it, such as `job 4711`."""

    def look(self) -> queue.QueuedJob | None:
        """Return what is known of its state; None when the queue does not know it any more."""

    def ask_to_stop(self) -> None:
        """Let the ranks save and stop; a job that waits is taken out of the queue."""

    def ask_for_stacks(self) -> None:
        """Have the ranks write into their logs where their threads are."""

    def cancel(self) -> None:
        """End it without more ado."""


class SubmittedJob:
    """A job in the queue."""

    def __init__(self, record: JobRecord) -> None:
        self.record = record

    @property
    def id(self) -> str:
        """Slurm's id of it."""
        return self.record.selector

    def describe(self) -> str:
        """Return `job 4711`, or `job 4711_3` in an array."""
        return f"job {self.record.selector or self.record.name}"

    def look(self) -> queue.QueuedJob | None:
        """Return what the queue says of it."""
        return queue.look([self.record])[self.record]

    def ask_to_stop(self) -> None:
        """Ask the script, or cancel a job that has none running."""
        found = self.look()
        if found is not None and found.runs:
            queue.signal_batch(self.record, "USR1")
        else:
            queue.cancel(self.record)

    def ask_for_stacks(self) -> None:
        """Ask the script, which passes it on."""
        queue.signal_batch(self.record, "USR2")

    def cancel(self) -> None:
        """Cancel it; what Slurm calls KillWait is all the time that is left to it."""
        queue.cancel(self.record)


class AllocatedJob:
    """The same script, run by this process in the allocation that it is in."""

    def __init__(self, script: Path, log: Path) -> None:
        log.parent.mkdir(parents=True, exist_ok=True)
        leashed = [sys.executable, "-I", "-S", leash.__file__, str(os.getpid())]
        with log.open("ab") as output:
            self._script = subprocess.Popen(
                [*leashed, "bash", str(script), "here"],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def id(self) -> str:
        """The id of the job whose allocation it is."""
        return job_id(os.environ) or ""

    def describe(self) -> str:
        """Return whose allocation it is."""
        return f"the allocation of job {self.id}"

    def look(self) -> queue.QueuedJob:
        """Return how the script fares, in Slurm's words."""
        code = self._script.poll()
        state = "RUNNING" if code is None else "FAILED" if code else "COMPLETED"
        return queue.QueuedJob(self.id, None, state, "")

    def ask_to_stop(self) -> None:
        """Ask the script."""
        if self._script.poll() is None:
            self._script.send_signal(signal.SIGUSR1)

    def ask_for_stacks(self) -> None:
        """Ask the script, which passes it on."""
        if self._script.poll() is None:
            self._script.send_signal(signal.SIGUSR2)

    def cancel(self) -> None:
        """End srun, which ends its tasks, and the script."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            if self._script.poll() is None:
                os.killpg(self._script.pid, number)
                try:
                    self._script.wait(KILL_SECONDS)
                except subprocess.TimeoutExpired:
                    continue


def look_at(jobs: Iterable[Job]) -> dict[Job, queue.QueuedJob | None]:
    """Return what is known of each job, by one command for all.

    Raises:
        SlurmUnreachable: squeue did not answer.
    """
    wanted = list(jobs)
    records = {job: job.record for job in wanted if isinstance(job, SubmittedJob)}
    found = queue.look(records.values()) if records else {}
    return {job: found[records[job]] if job in records else job.look() for job in wanted}


def find_job(run: Path, *, timeout_seconds: float = queue.TIMEOUT_SECONDS) -> SubmittedJob | None:
    """Return the job that waits or runs for a run directory, submitted by whomever; or None.

    Raises:
        SlurmUnreachable: squeue did not answer.
    """
    return find_jobs([run], timeout_seconds=timeout_seconds)[run]


def find_jobs(
    runs: Sequence[Path], *, timeout_seconds: float = queue.TIMEOUT_SECONDS
) -> dict[Path, SubmittedJob | None]:
    """Return the job of each run directory, as `find_job` does, by one look at the queue."""
    recorded = {run: read_job(run) for run in runs}
    by_name = {run: JobRecord(job_name(run)) for run in runs}
    known = [job for job in recorded.values() if job is not None]
    queued = queue.look([*known, *by_name.values()], timeout_seconds=timeout_seconds)
    found: dict[Path, SubmittedJob | None] = dict.fromkeys(runs)
    for run in runs:
        for job in (recorded[run], by_name[run]):
            entry = None if job is None else queued[job]
            if job is not None and entry is not None and not entry.has_ended:
                record = JobRecord(job.name, entry.job_id, entry.index)
                if record != recorded[run]:
                    write_job(run, record)
                found[run] = SubmittedJob(record)
                break
    return found


def submit_job(run: Path) -> SubmittedJob:
    """Submit the script in a run directory.

    Raises:
        SlurmUnreachable: sbatch refused it.
    """
    (run / "slurm").mkdir(exist_ok=True)  # sbatch makes no directory for the job's log
    record = JobRecord(job_name(run))
    write_job(run, record)
    record = JobRecord(record.name, queue.submit(run / SCRIPT, environment=os.environ))
    write_job(run, record)
    return SubmittedJob(record)


def start_job(run: Path, launch: LaunchParams, slurm: SlurmParams) -> Job | None:
    """Return the job of a run: the one that is there, else a new one; None if `submit` is False.

    In an allocation the script is run there, and no job is looked for.

    Raises:
        SlurmUnreachable: Slurm did not answer, or refused the script.
        ValueError: The allocation is too small.
    """
    if queue.is_in_allocation():
        nodes = int(os.environ.get("SLURM_JOB_NUM_NODES", "1"))
        needed = slurm.min_nodes or launch.nodes
        if nodes < needed:
            raise ValueError(
                f"This allocation has {nodes} nodes, but the launch needs {needed}. "
                f"Allocate {needed}, or set nodes={nodes}."
            )
        log = run / "slurm" / f"job-{os.environ['SLURM_JOB_ID']}.log"
        return AllocatedJob(run / SCRIPT, log)
    try:
        # To write a script one needs no cluster, which squeue may look for in vain.
        patience = queue.TIMEOUT_SECONDS if slurm.submit else SCRIPT_SECONDS
        found = find_job(run, timeout_seconds=patience)
    except queue.SlurmUnreachable:
        if slurm.submit:
            raise
        found = None
    if found is not None:
        logging.info("%s trains here already: it is followed.", found.describe().capitalize())
        return found
    if not slurm.submit:
        return None
    job = submit_job(run)
    logging.info("Submitted %s: %s", job.describe(), run / SCRIPT)
    return job
