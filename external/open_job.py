"""Opening the job of a trainer process: lock, attempt, journal and resume point; and its end."""

import contextlib
import platform
import shlex
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from ..params.checkpoint import CheckpointParams
from .attempt import Attempt, end_attempt, not_told, start_attempt
from .background_journal import BackgroundJournal
from .completion import complete_run
from .environment import launched, ranks
from .job import TrainerJob
from .layout import Layout
from .manifest import is_complete
from .refused import Refused
from .resume import resume_point
from .run_lock import RunLock
from .stop import EXIT_CODES, StopRequest, TrainingStopped
from .stores.kinds import open_store
from .stores.lease_holder import holder
from .stores.local import LocalStore
from .stores.settings import parse_settings
from .stores.store import Store, StoreError


@contextlib.contextmanager
def open_job(
    *,
    run_dir: Path | None,
    dataset_path: Path | None = None,
    model_path: Path | None = None,
    checkpoint_dir: Path | None = None,
    resume: str = "auto",
    trusted: bool = False,
    policy: CheckpointParams | None = None,
) -> Iterator[TrainerJob | None]:
    """Open the job of this process: lock, attempt, journal and resume point.

    Yields None when the run is already complete. Under a stage, which holds the lock and
    completes the run, only the journal is opened. A stop request ends the process with 128 plus
    the signal's number.

    Raises:
        Refused: No run directory, or none that can be written to; or `resume` does not fit it.
        RunLocked: Somebody else trains in this run directory.
    """
    layout = Layout(_run_directory(run_dir, model_path))
    place, launch = ranks(), launched()
    policy = policy or CheckpointParams()
    stop = StopRequest()
    stop.listen()
    with contextlib.ExitStack() as stack:
        if launch is None and place.rank == 0:
            try:
                stack.enter_context(RunLock(layout.run))
            except OSError as error:
                raise Refused(
                    f"'{layout.run}' is no directory that can be written to ({error}). "
                    "Give another --run_dir."
                ) from error
        if launch is None and is_complete(layout.run):
            if place.rank == 0:
                print(_nothing_to_train(layout.run), file=sys.stderr)  # noqa: T201
            yield None
            return
        fetched = Path(stack.enter_context(TemporaryDirectory(prefix="curitorch-resume-")))
        try:
            store = stack.enter_context(_open_store(layout, checkpoint_dir, policy))
            # Leased before it is read: what an earlier attempt still writes is refused from here.
            lease = stack.enter_context(store.lease(holder())) if place.rank == 0 else None
            begin = resume_point(store, resume, folder=fetched)
        except StoreError as error:
            raise Refused(str(error)) from error
        job = TrainerJob(
            layout=layout,
            dataset_path=dataset_path,
            model_path=model_path or layout.model,
            store=store,
            lease=lease,
            policy=policy,
            resume=begin,
            trusted=trusted,
            ranks=place,
            managed=launch is not None,
            attempt=launch.attempt if launch is not None else 0,
            stop=stop,
        )
        attempt: Attempt | None = None
        if place.rank == 0:
            if launch is None:
                attempt = start_attempt(
                    layout.run, sys.orig_argv, world_size=place.world_size, nodes=place.nodes
                )
                job = replace(job, attempt=attempt.number)
            job = replace(job, journal=stack.enter_context(BackgroundJournal(layout.journal)))
            _announce(job)
        try:
            yield job
        except TrainingStopped as stopped:
            if attempt is not None:
                end_attempt(
                    layout.run, attempt, exit_code=EXIT_CODES[stopped.reason], outcome="stopped"
                )
            if place.rank == 0:
                print(f"{stopped} The same command goes on from there.", file=sys.stderr)  # noqa: T201
            sys.exit(EXIT_CODES[stopped.reason])
        except BaseException:
            if attempt is not None:
                end_attempt(layout.run, attempt, exit_code=1, outcome="failed")
            raise
        if attempt is not None:
            end_attempt(layout.run, attempt, exit_code=0, outcome="complete")
            complete_run(layout.run)


def _nothing_to_train(run: Path) -> str:
    sentence = f"'{run}' is complete: nothing to train."
    new = not_told(run, sys.argv[1:])
    if new:
        words = shlex.join(new)
        sentence += f" It was trained without {words}: give another --run_dir to train with that."
    return sentence


def _run_directory(run_dir: Path | None, model_path: Path | None) -> Path:
    if run_dir is not None:
        return run_dir
    if model_path is not None:
        return model_path.with_suffix(".run")
    raise Refused(
        "There is no directory to train in. Give --run_dir DIRECTORY (or --model_path FILE, "
        "which trains in FILE's name with '.run')."
    )


def _open_store(layout: Layout, directory: Path | None, policy: CheckpointParams) -> Store:
    """Open the store that checkpoints go to: by `directory`, by the policy, or in the run.

    Raises:
        Refused: Both are given.
        BadSettings: The policy's settings do not fit its kind of store.
    """
    if policy.store == "local" and not policy.store_settings:
        return LocalStore(directory or layout.checkpoints)
    if directory is not None:
        raise Refused(
            f"--checkpoint_dir {str(directory)!r} and --store {policy.store} say both where "
            "checkpoints go. Give one of them."
        )
    settings = parse_settings(policy.store_settings)
    name = layout.run.absolute().name
    return open_store(policy.store, {k: v.replace("{run}", name) for k, v in settings.items()})


def _announce(job: TrainerJob) -> None:
    if job.journal is not None:
        job.journal.attempt(
            job.attempt,
            resume_step=job.resume.step if job.resume is not None else 0,
            world_size=job.ranks.world_size,
            host=platform.node(),
        )
