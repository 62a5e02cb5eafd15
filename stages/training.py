"""Running a trainer program from a curifactory stage, until its run directory is complete."""

import logging
import os
from collections.abc import Mapping
from typing import Any

from ..cachers import TrainingRunCacher
from ..cachers.training_run import warn_of_other_options
from ..external.import_object import check_object
from ..external.run_lock import RunLock
from ..external.rundir import TrainingRun
from ..params import CheckpointParams, LaunchParams, SlurmParams, TrainerParams
from ..params.curifactory_api import Record
from .announcement import announce
from .command import OWN_TRAINER, OWN_TRAINERS, option_words, path_of, trainer_words
from .failure import TrainerFailed, TrainerStopped
from .interruption import Interruption
from .launchers import Launcher, LocalLauncher
from .overwriting import empty, is_to_be_overwritten
from .report import check_name, report_training
from .slurm.launcher import SlurmLauncher
from .sweep_members import collect, raise_failure

__all__ = ["OWN_TRAINER", "path_of", "run_training"]


def run_training(
    record: Record,
    trainer: str = OWN_TRAINER,
    *,
    inputs: Mapping[str, object] | None = None,
    options: Mapping[str, object] | None = None,
    settings: TrainerParams | None = None,
    checkpoint: CheckpointParams | None = None,
    launch: LaunchParams | None = None,
    slurm: SlurmParams | None = None,
    sdk: bool = False,
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
        slurm: What their job asks for, where `launch.launcher` is "slurm".
        sdk: The program takes no standard options, only `inputs` and `options`: it learns of the
            run from its environment, by `curitorch.external.sdk`.
        run: The run directory; without it, that of the stage's `TrainingRunCacher` output.

    Raises:
        TrainerFailed: The program failed more often than `launch.max_restarts` allows.
        TrainerStopped: Somebody sent the trainer processes SIGTERM, or cancelled their job.
        JobNotSubmitted: `slurm.submit` is False; the message says where the job's script is.
        SlurmUnreachable: Slurm did not answer, or refused the job.
        RunLocked: Somebody else trains in this run directory.
        ValueError: The parameter set's name cannot be that of a file.
        TypeError: Settings are of another kind than they are given for.
        ObjectNotFound: The settings name a model or data that is not there.
        KeyboardInterrupt: Ctrl-C, after the ranks have saved and stopped.
    """
    check_name(record)
    params: Any = record.params
    own = trainer in OWN_TRAINERS
    settings = settings or (getattr(params, "trainer", None) if own else None)
    checkpoint = checkpoint or getattr(params, "checkpoint", None) or CheckpointParams()
    launch = launch or getattr(params, "launch", None) or LaunchParams()
    _check_kind(checkpoint, CheckpointParams, "checkpoint")
    _check_kind(launch, LaunchParams, "launch")
    handle = TrainingRun(run.path if isinstance(run, TrainingRun) else run or _output_of(record))
    if settings is not None:
        _check_kind(settings, TrainerParams, "trainer")
        settings.check_complete()
        check_object(settings.model, option="model")
        if settings.data:
            check_object(settings.data, option="data")
    program = trainer_words(
        trainer,
        run=handle.path,
        inputs=inputs,
        options=options,
        settings=settings,
        checkpoint=checkpoint,
        launch=launch,
        sdk=sdk,
    )
    training: Launcher = LocalLauncher(handle, program, checkpoint, launch, sdk=sdk)
    if launch.launcher == "slurm":
        slurm = slurm or getattr(params, "slurm", None) or SlurmParams()
        _check_kind(slurm, SlurmParams, "slurm")
        training = SlurmLauncher(handle, program, checkpoint, launch, slurm, sdk=sdk)
    if record.manager.dry or record.manager.dry_cache:
        announce("Dry, not launched", training.command)
        return handle
    collect(training)  # in a sweep: it is launched with the others
    try:
        raise_failure(handle)
    except (TrainerFailed, TrainerStopped) as failure:
        failed = failure if isinstance(failure, TrainerFailed) else None
        report_training(record, handle, failure=failed)
        raise
    interruption = Interruption()
    with RunLock(handle.path, wait_seconds=launch.lock_wait_seconds, on_wait=logging.info):
        if is_to_be_overwritten(record, handle):
            training.end_old()
            empty(handle)
        warn_of_other_options(handle.path, option_words(options or {}))
        if not handle.is_complete:
            with interruption:
                training.complete(record, interruption)
        else:  # in a sweep, or by an experiment that was killed before it could report
            report_training(record, handle)
    interruption.pass_on()
    return handle


def _check_kind(value: object, kind: type, name: str) -> None:
    if not isinstance(value, kind):
        raise TypeError(
            f"The setting {name!r} is {value!r:.80}, expected {kind.__name__}. "
            f"Write {kind.__name__}(…)."
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
