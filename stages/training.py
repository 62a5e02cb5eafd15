"""Running a trainer program from a curifactory stage, until its run directory is complete."""

import contextlib
import logging
import os
import shlex
import shutil
import signal
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from types import FrameType
from typing import Any

from ..cachers import TrainingRunCacher
from ..external.attempt import Attempt, end_attempt, start_attempt
from ..external.atomic import remove_leftovers
from ..external.environment import for_trainers
from ..external.import_object import check_object
from ..external.job import complete_run
from ..external.journal import JournalTail
from ..external.layout import Layout
from ..external.manifest import is_complete, read_manifest
from ..external.run_lock import RunLock
from ..external.rundir import TrainingRun
from ..params import CheckpointParams, LaunchParams, TrainerParams
from ..params.commandline import to_arguments
from ..params.curifactory_api import Lazy, Record
from .command import option_words, program_words, torchrun_command
from .failure import TrainerFailed, TrainerStopped, diagnose
from .live_line import live_line
from .processes import TrainerProcesses, end_leftovers
from .progress import Progress
from .report import report_training

OWN_TRAINER = "curitorch.external.trainer"
USAGE_ERROR = 2
POLL_SECONDS = 0.1


def run_training(
    record: Record,
    trainer: str = OWN_TRAINER,
    *,
    inputs: Mapping[str, object] | None = None,
    options: Mapping[str, object] | None = None,
    settings: TrainerParams | None = None,
    checkpoint: CheckpointParams | None = None,
    launch: LaunchParams | None = None,
    run: TrainingRun | str | os.PathLike[str] | None = None,
) -> TrainingRun:
    """Train in processes of their own and return the complete run; call it in a stage's body.

    A run that is complete is returned at once; one that is not is continued from its newest whole
    checkpoint, or begun anew where curifactory was told to overwrite. Under `--dry` and
    `--dry-cache` nothing is launched, and the run that comes back may not be complete.

    Args:
        record: The stage's record; its parameters give the defaults of the settings below when
            they are a `TrainingParams`.
        trainer: The trainer program, `package.module` or `script.py`.
        inputs: Option names to artifacts: our handles, plain paths, or an unresolved `cf.Lazy`.
        options: Further options of the program, after those that come from the settings.
        settings: What is trained. For our own trainer only; others get `options` alone.
        checkpoint: The checkpoint policy, for programs with the standard options.
        launch: How many processes, where, with how many restarts.
        run: The run directory; without it, that of the stage's `TrainingRunCacher` output.

    Raises:
        TrainerFailed: The program failed more often than `launch.max_restarts` allows.
        TrainerStopped: Somebody sent the trainer processes SIGTERM; it is not the program's fault.
        RunLocked: Somebody else trains in this run directory.
        ObjectNotFound: The settings name a model or data that is not there.
        KeyboardInterrupt: Ctrl-C, after the ranks have saved and stopped.
    """
    params: Any = record.params
    own = trainer == OWN_TRAINER
    settings = settings or (getattr(params, "trainer", None) if own else None)
    checkpoint = checkpoint or getattr(params, "checkpoint", None) or CheckpointParams()
    launch = launch or getattr(params, "launch", None) or LaunchParams()
    handle = TrainingRun(run.path if isinstance(run, TrainingRun) else run or _output_of(record))
    if settings is not None:
        settings.check_complete()
        check_object(settings.model, option="model")
        if settings.data:
            check_object(settings.data, option="data")
    program = [
        *program_words(trainer),
        f"--run_dir={handle.path.resolve()}",
        *(to_arguments(settings) if settings is not None else []),
        *(option_words({name: path_of(value) for name, value in (inputs or {}).items()})),
        *(to_arguments(checkpoint)),
        *(_device_words(launch) if own else []),
        *option_words(options or {}),
    ]
    command = torchrun_command(program, launch)
    if record.manager.dry or record.manager.dry_cache:
        logging.info("Dry: not launched: %s", shlex.join(command))
        return handle
    with (
        _Interruption() as interruption,
        RunLock(handle.path, wait_seconds=launch.lock_wait_seconds, on_wait=logging.info),
    ):
        if _is_to_be_overwritten(record, handle):
            _empty(handle.path)
        if not handle.is_complete:
            _complete(record, handle, command, launch, interruption)
    interruption.pass_on()
    return handle


def path_of(artifact: object) -> str:
    """Return the path of an input artifact as a trainer is told it, absolute.

    Raises:
        TypeError: It is neither a handle of ours, a path, nor a Lazy with a cacher.
    """
    if isinstance(artifact, Lazy):
        if artifact.cacher is None:
            raise TypeError(f"Lazy input {artifact.name!r} has no cacher. Give its stage one.")
        artifact = artifact.cacher.get_path()
    if isinstance(artifact, TrainingRun):
        artifact = artifact.path
    if isinstance(artifact, str | os.PathLike):
        return str(Path(artifact).resolve())
    raise TypeError(
        f"A {type(artifact).__name__} was given as the input of a trainer, expected a path. "
        "Cache it in a stage before, e.g. with DatasetCacher, or mark it Lazy(…, resolve=False)."
    )


def _output_of(record: Record) -> str:
    """Return the path of the output that is a run directory."""
    cachers = [c for c in record.stage_cachers or [] if isinstance(c, TrainingRunCacher)]
    if len(cachers) != 1:
        raise ValueError(
            f"The stage has {len(cachers)} outputs with a TrainingRunCacher, expected one. "
            "Add one, or say where to train: run_training(…, run=path)."
        )
    return str(cachers[0].get_path())


def _device_words(launch: LaunchParams) -> list[str]:
    kept = {"accelerator": launch.accelerator, "strategy": launch.strategy}
    return option_words({name: value for name, value in kept.items() if value != "auto"})


def _is_to_be_overwritten(record: Record, run: TrainingRun) -> bool:
    """Return whether curifactory was told to overwrite what is older than this experiment.

    What this experiment itself trained stays: `--parallel` runs a stage in a child process and
    then in the parent, and records with the same parameters share a run.
    """
    manager = record.manager
    records = [record, *record.input_records] if record.is_aggregate else [record]
    told = (
        manager.overwrite
        or manager.current_stage_name in manager.overwrite_stages
        or any(r.params is not None and r.params.overwrite for r in records)
    )
    if not told or not run.path.exists():
        return False
    if not run.is_complete:
        return True
    completed = datetime.fromisoformat(read_manifest(run.path).completed)
    return completed.timestamp() < int(manager.run_timestamp.timestamp())


def _empty(run: Path) -> None:
    """Delete what is in the run directory, but the lock that we hold; the manifest first."""
    layout = Layout(run)
    layout.manifest.unlink(missing_ok=True)
    for entry in run.iterdir():
        if entry.name.startswith("lock"):
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def _complete(
    record: Record,
    run: TrainingRun,
    command: Sequence[str],
    launch: LaunchParams,
    interruption: "_Interruption",
) -> None:
    """Launch, and launch again after failures, until the run is complete."""
    left = end_leftovers(run.path, grace_seconds=launch.grace_seconds)
    if left:
        logging.warning("Ended %d trainer processes that a killed experiment left behind.", left)
    remove_leftovers(run.path)
    for restarts_left in range(launch.max_restarts, -1, -1):
        attempt = start_attempt(
            run.path, list(command), world_size=launch.processes_per_node, nodes=launch.nodes
        )
        logging.info("Launching: %s", shlex.join(command))
        exit_code, progress = _follow(record, run, attempt, launch, interruption)
        if exit_code == 0:
            try:
                complete_run(run.path)
            except FileNotFoundError as error:
                end_attempt(run.path, attempt, exit_code=0, outcome="failed")
                raise _no_model(run, attempt, error) from error
            end_attempt(run.path, attempt, exit_code=0, outcome="complete")
            report_training(record, run)
            return
        if progress.stop_reason is not None or interruption.number is not None:
            end_attempt(run.path, attempt, exit_code=exit_code, outcome="stopped")
            report_training(record, run)
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
    interruption: "_Interruption",
) -> tuple[int, Progress]:
    """Launch one attempt and follow it to its end; returns the exit code and where it got."""
    layout = run.layout
    tail, progress = JournalTail(layout.journal), Progress()
    for event in tail.read():  # of the attempts before
        progress.update(event)
    environment = for_trainers(
        os.environ,
        run=run.path,
        attempt=attempt.number,
        extra={"PYTHONPATH": _python_path(), **launch.environment},
    )
    processes = TrainerProcesses(
        attempt.command,
        environment=environment,
        run=run.path,
        logs=layout.logs(attempt.number),
        launcher_log=layout.launcher_log(attempt.number),
    )
    name = record.params.name if record.params is not None else record.manager.current_stage_name
    try:
        with live_line(name, record.manager.map_progress) as line:
            while processes.poll() is None:
                for event in tail.read():
                    progress.update(event)
                line.show(progress)
                if interruption.number is not None:
                    processes.ask_to_stop()
                    interruption.wait_for_end(processes, launch.grace_seconds)
                    break
                time.sleep(POLL_SECONDS)
    finally:
        exit_code = processes.end()
    for event in tail.read():
        progress.update(event)
    return exit_code, progress


def _python_path() -> str:
    """Return where the trainers find what this process finds: its own folders, in its order."""
    installed = (sys.prefix, sys.base_prefix, sys.exec_prefix)
    own = [p for p in sys.path if p and Path(p).is_dir() and not p.startswith(installed)]
    return os.pathsep.join(dict.fromkeys([str(Path.cwd()), *(str(Path(p).resolve()) for p in own)]))


def _is_usage_error(run: Path, attempt: Attempt) -> bool:
    """Return whether the program refused its options: no restart can mend that."""
    from ..external.rank_report import read_reports

    reports = read_reports(Layout(run).logs(attempt.number))
    return any(report.exit_code == USAGE_ERROR for report in reports)


def _no_model(run: TrainingRun, attempt: Attempt, error: FileNotFoundError) -> TrainerFailed:
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


class _Interruption:
    """SIGINT and SIGTERM to the experiment while trainers run: remembered, then passed on.

    Only the main thread can take signals; elsewhere this does nothing.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self._again = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "_Interruption":
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._remember)
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _remember(self, number: int, frame: FrameType | None) -> None:
        self._again = self.number is not None
        self.number = self.number or number

    def wait_for_end(self, processes: TrainerProcesses, grace_seconds: float) -> None:
        """Wait until the processes have saved and ended; a second signal does not wait."""
        deadline = time.monotonic() + grace_seconds
        while processes.poll() is None and time.monotonic() < deadline and not self._again:
            time.sleep(POLL_SECONDS / 2)

    def pass_on(self) -> None:
        """Let the signal do to this process what it would have done without us."""
        if self.number is None:
            return
        sys.stdout.flush()
        logging.shutdown()
        os.kill(os.getpid(), self.number)
        with contextlib.suppress(KeyboardInterrupt):
            time.sleep(0)  # Python runs its handlers between two instructions
        raise KeyboardInterrupt(f"{signal.Signals(self.number).name}: training was stopped.")
