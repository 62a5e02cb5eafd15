"""Many runs as the members of one job array: submitted together, followed together.

Each member runs the script in its own run directory; the array's is `slurm/sweep.sbatch` in the
first one. Runs whose jobs ask for different things are different arrays.
"""

import contextlib
import hashlib
import logging
import os
import shlex
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from ...external.atomic import whole_file
from ...external.job_record import JobRecord, read_job, write_job
from ...external.progress import Progress
from ...external.run_lock import RunLock
from ...external.slurm_job import SCRIPT
from ...params.curifactory_api import Record
from ..failure import TrainerFailed, TrainerStopped
from ..interruption import Interruption
from ..live_line import live_line
from ..overwriting import empty, is_to_be_overwritten
from ..sweep_members import note_end
from .following import TICK_SECONDS, Followed, Follower
from .job import SubmittedJob, find_jobs
from .job_watch import JobWatch
from .launcher import SlurmLauncher
from .queue import submit
from .script import header
from .supervision import CANCEL_SECONDS, check_end, not_submitted, stop

Members = Mapping[str, tuple[Record, SlurmLauncher]]


def train_array(members: Members, *, at_once: int | None) -> None:
    """Train all members whose runs are not complete, and note for their stages how they ended.

    A run whose job waits or runs already is followed.

    Args:
        members: Records and launchers, by the names that messages use.
        at_once: How many members of an array may run at the same time.

    Raises:
        JobNotSubmitted: `slurm.submit` is False for one of them.
        SlurmUnreachable: Slurm did not answer, or refused the script.
        RunLocked: Somebody else trains one of them.
    """
    interruption = Interruption()
    failures: dict[str, Exception] = {}
    with contextlib.ExitStack() as stack:
        for record, member in members.values():
            wait = member.launch.lock_wait_seconds
            lock = RunLock(member.run.path, wait_seconds=wait, on_wait=logging.info)
            stack.enter_context(lock)
            if is_to_be_overwritten(record, member.run):
                member.end_old()
                empty(member.run)
        stack.enter_context(interruption)
        left = {n: m for n, (_, m) in members.items() if not m.run.is_complete}
        started = 0
        while left and interruption.number is None:
            failures |= _train_once(left, at_once, interruption)
            started += 1
            again = {n: m for n, m in left.items() if isinstance(failures.get(n), TrainerFailed)}
            left = {n: m for n, m in again.items() if started <= _restarts(m)}
            for name in left:
                logging.warning("%s", failures.pop(name))
    interruption.pass_on()
    for name, (_, member) in members.items():
        note_end(member.run, failures.get(name))


def write_array(members: Sequence[SlurmLauncher], *, at_once: int | None) -> Path:
    """Write the script of an array, for runs whose own are written; returns its path.

    Each run learns of its place in it, and is found there, whoever submits the script.
    """
    runs = [member.run.path for member in members]
    digest = hashlib.sha256("\n".join(str(run.resolve()) for run in runs).encode()).hexdigest()
    name = f"sweep-{digest[:10]}"
    script = runs[0].resolve() / "slurm" / "sweep.sbatch"
    with whole_file(script) as temporary:
        temporary.write_text(render_array(members, name=name, at_once=at_once), encoding="utf-8")
    for index, run in enumerate(runs):
        write_job(run, JobRecord(name, index=index))
    return script


def submit_array(members: Sequence[SlurmLauncher], *, at_once: int | None) -> None:
    """Submit runs as one array; each learns of its job.

    Raises:
        JobNotSubmitted: That is not wanted; the script is written.
        SlurmUnreachable: sbatch refused it.
    """
    script = write_array(members, at_once=at_once)
    if not members[0].slurm.submit:
        raise not_submitted(script)
    job_id = submit(script, environment=os.environ)
    for member in members:
        placed = read_job(member.run.path)
        if placed is not None:
            write_job(member.run.path, replace(placed, job_id=job_id))
    logging.info("Submitted job %s, %d members: %s", job_id, len(members), script)


def render_array(members: Sequence[SlurmLauncher], *, name: str, at_once: int | None) -> str:
    """Return the text of the array's script.

    Raises:
        ValueError: A path cannot stand in an sbatch file.
    """
    first = members[0]
    log = first.run.path.resolve() / "slurm" / "sweep-%A_%a.log"
    limit = "" if at_once is None else f"%{at_once}"
    lines = [
        "#!/bin/bash",
        *header(first.launch, first.slurm, name=name, log=log, folder=Path.cwd()),
        f"#SBATCH --array=0-{len(members) - 1}{limit}",
        "",
        "runs=(",
        *(f"    {shlex.quote(str(member.run.path.resolve()))}" for member in members),
        ")",
        "run=${runs[$SLURM_ARRAY_TASK_ID]}",
        f'exec bash "$run/{SCRIPT}" >>"$run/slurm/job-$SLURM_JOB_ID.log" 2>&1',
    ]
    return "\n".join(lines) + "\n"


class SweepProgress(Progress):
    """How far a sweep is: an epoch for each member that ended, for those who draw one line."""

    followed: Sequence[Followed] = ()

    def count(self, followed: Sequence[Followed]) -> None:
        """Count again."""
        self.followed = followed
        self.planned, self.step = len(followed), sum(each.has_ended for each in followed)
        self.epoch = self.step

    def describe(self, now: float) -> str:
        """Return one line: how many are complete, failed, running and waiting."""
        complete = sum(each.has_ended and each.run.is_complete for each in self.followed)
        running = sum(not each.has_ended and each.state == "RUNNING" for each in self.followed)
        ended = sum(each.has_ended for each in self.followed)
        parts = [f"{complete}/{len(self.followed)} complete"]
        if ended > complete:
            parts.append(f"{ended - complete} not")
        parts += [f"{running} running", f"{len(self.followed) - ended - running} waiting"]
        return " · ".join(parts)


def _train_once(
    members: Mapping[str, SlurmLauncher], at_once: int | None, interruption: Interruption
) -> dict[str, Exception]:
    """Find or submit jobs, follow them to their end, and return what failed."""
    jobs = find_jobs([member.run.path for member in members.values()])
    arrays: dict[tuple[object, ...], list[SlurmLauncher]] = defaultdict(list)
    for member in members.values():
        if jobs[member.run.path] is None and not member.is_trained():
            member.write()
            asks = (*header(member.launch, member.slurm, name="", log=Path(), folder=Path()),)
            arrays[(*asks, member.slurm.submit)].append(member)
    for array in arrays.values():
        submit_array(array, at_once=at_once)
    found = find_jobs([member.run.path for member in members.values()])
    followed = {
        name: Followed(member.run, job)
        for name, member in members.items()
        if (job := found[member.run.path] or _recorded(member)) is not None
    }
    _follow(followed, members, interruption)
    failures: dict[str, Exception] = {}
    for name, each in followed.items():
        try:
            check_end(each, interrupted=interruption.number is not None)
        except (TrainerFailed, TrainerStopped) as failure:
            failures[name] = failure
    return failures


def _follow(
    jobs: Mapping[str, Followed], members: Mapping[str, SlurmLauncher], interruption: Interruption
) -> None:
    followed = list(jobs.values())
    poll_seconds = min(member.slurm.poll_seconds for member in members.values())
    grace_seconds = max(member.launch.grace_seconds for member in members.values())
    follower = Follower(followed, poll_seconds=poll_seconds)
    watches = [JobWatch(each, members[name].launch, name=name) for name, each in jobs.items()]
    progress = SweepProgress()
    with live_line("sweep", None) as line:
        while not follower.has_ended():
            progress.count(followed)
            line.show(progress)
            if sum(watch.cancels() for watch in watches):
                follower.hurry(CANCEL_SECONDS)
            if interruption.number is not None:
                stop(follower, interruption, grace_seconds)
                break
            time.sleep(TICK_SECONDS)
        progress.count(followed)
        line.show(progress)


def _recorded(member: SlurmLauncher) -> SubmittedJob | None:
    """Return the job that was submitted a moment ago, and ended before anybody looked."""
    record = read_job(member.run.path)
    return None if record is None else SubmittedJob(record)


def _restarts(member: SlurmLauncher) -> int:
    return member.launch.max_restarts if member.slurm.min_nodes is None else 0
