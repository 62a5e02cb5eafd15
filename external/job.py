"""A trainer's job: where it reads and writes, where it resumes, who its ranks are.

The object that `trainer_options` hands to a click trainer. `job.trainer()` makes a Lightning
Trainer that reports and checkpoints; `job.fit()` trains, resumes and leaves a complete run.
"""

import contextlib
import pickle
import platform
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..params.checkpoint import CheckpointParams
from .atomic import copy_or_link
from .attempt import Attempt, code_commit, end_attempt, start_attempt
from .checkpoint import Checkpoint, checkpoint_path, list_checkpoints, newest_valid
from .environment import Ranks, launched, ranks
from .journal import Journal
from .layout import Layout
from .manifest import is_complete, write_manifest
from .model_record import write_model_record
from .refused import Refused
from .run_lock import RunLock
from .stop import EXIT_CODES, StopRequest, TrainingStopped

if TYPE_CHECKING:
    from lightning.pytorch import LightningDataModule, LightningModule, Trainer


@dataclass(frozen=True)
class TrainerJob:
    """One trainer process's view of a training run.

    Attributes:
        layout: Where things lie in the run directory.
        dataset_path: What `--dataset_path` named, or None.
        model_path: Where the final model goes, in the run directory and here.
        checkpoint_dir: Where checkpoints go.
        policy: When they are saved and how many are kept.
        resume: The checkpoint that training goes on from, or None for a beginning.
        trusted: Whether a checkpoint that needs unpickling of code may be opened.
        ranks: This process's place.
        managed: Whether a stage launched this process and will complete the run.
        journal: The open journal on rank 0, None elsewhere.
        attempt: The number of this attempt.
    """

    layout: Layout
    dataset_path: Path | None
    model_path: Path
    checkpoint_dir: Path
    policy: CheckpointParams
    resume: Checkpoint | None
    trusted: bool
    ranks: Ranks
    managed: bool
    attempt: int = 0
    journal: Journal | None = None
    stop: StopRequest = field(default_factory=StopRequest)

    def trainer(self, *, arguments: Mapping[str, Any] | None = None, **options: Any) -> "Trainer":
        """Return a Lightning Trainer for this job; `options` are its own and win over ours.

        Callbacks, loggers and plugins given here are added to the job's.

        Args:
            arguments: The model's constructor arguments as plain data: recorded, so that a model
                that does not save its hyperparameters can be reloaded.
            options: Of `lightning.Trainer`.
        """
        from lightning.pytorch import Trainer

        from .checkpoint_io import WholeCheckpointIO
        from .journal_logger import JournalLogger
        from .periodic_checkpoint import PeriodicCheckpoint

        logger = JournalLogger(self.journal)
        checkpoint = PeriodicCheckpoint(
            self.checkpoint_dir,
            self.policy,
            journal=self.journal,
            stop=self.stop,
            arguments=None if arguments is None else dict(arguments),
        )
        more_loggers = options.pop("logger", None) or []
        ours: dict[str, Any] = {
            "callbacks": [*_listed(options.pop("callbacks", None)), logger, checkpoint],
            "logger": [logger, *_listed(more_loggers)],
            "plugins": [WholeCheckpointIO(), *_listed(options.pop("plugins", None))],
            "devices": self.ranks.local_world_size,
            "num_nodes": self.ranks.nodes,
            "default_root_dir": self.layout.run,
            "enable_checkpointing": False,  # PeriodicCheckpoint is the one that saves
            "enable_progress_bar": not self.managed,  # a stage draws its own from the journal
            "use_distributed_sampler": False,  # `loaders` orders the samples
            "log_every_n_steps": 10,
        }
        return Trainer(**{**ours, **options})

    def fit(
        self,
        trainer: "Trainer",
        model: "LightningModule",
        data: object = None,
        *,
        batch_size: int | None = None,
        seed: int = 0,
    ) -> None:
        """Train to the end, from the checkpoint of `resume`, and write the final model.

        Args:
            trainer: From `self.trainer()`.
            model: What is trained.
            data: A LightningDataModule, loaders (see `LoaderData`), or None: the model has them.
            batch_size: Samples per optimizer step over all ranks and accumulated batches; None
                takes the loader's own as the batch over all ranks.
            seed: Of the order of samples.

        Raises:
            Refused: The checkpoint cannot be opened without more trust.
            TrainingStopped: The job was asked to stop; call it again to go on.
        """
        data_module = self._data_module(data, trainer, batch_size=batch_size, seed=seed)
        try:
            trainer.fit(
                model,
                datamodule=data_module,
                ckpt_path=None if self.resume is None else self.resume.path,
                weights_only=not self.trusted,
            )
        except pickle.UnpicklingError as error:
            raise Refused(
                f"'{self.resume and self.resume.path}' holds more than tensors and plain data: "
                f"{str(error).splitlines()[0]} Pass --trusted if you trust where it comes from."
            ) from error
        trainer.strategy.barrier("curitorch: every rank has trained to the end")
        if self.ranks.rank == 0:
            self._finish(trainer, model)

    def _data_module(
        self, data: object, trainer: "Trainer", *, batch_size: int | None, seed: int
    ) -> "LightningDataModule | None":
        from lightning.pytorch import LightningDataModule

        from .loaders import LoaderData, put_in_order

        if data is None:
            return None
        module = data if isinstance(data, LightningDataModule) else LoaderData(data)
        per_load = None if batch_size is None else batch_size // trainer.accumulate_grad_batches
        put_in_order(module, trainer, batch_size=per_load, seed=seed)
        return module

    def _finish(self, trainer: "Trainer", model: "LightningModule") -> None:
        """Make the last checkpoint the final model; rank 0 only."""
        last = checkpoint_path(self.checkpoint_dir, trainer.global_step)
        described = next(c for c in list_checkpoints(self.checkpoint_dir) if c.path == last)
        record = {**described.model, "commit": code_commit(Path.cwd())}
        for target in {self.layout.model, self.model_path}:
            copy_or_link(last, target)
            write_model_record(target, record)
        if self.journal is not None:
            self.journal.write("complete", step=described.step, epoch=described.epoch)
            self.journal.fsync()


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
        Refused: No run directory, or `resume` does not fit what is there.
        RunLocked: Somebody else trains in this run directory.
    """
    layout = Layout(_run_directory(run_dir, model_path))
    place, launch = ranks(), launched()
    job = TrainerJob(
        layout=layout,
        dataset_path=dataset_path,
        model_path=model_path or layout.model,
        checkpoint_dir=checkpoint_dir or layout.checkpoints,
        policy=policy or CheckpointParams(),
        resume=None,
        trusted=trusted,
        ranks=place,
        managed=launch is not None,
        attempt=launch.attempt if launch is not None else 0,
    )
    job.stop.listen()
    with contextlib.ExitStack() as stack:
        if launch is None and place.rank == 0:
            stack.enter_context(RunLock(layout.run))
        if launch is None and is_complete(layout.run):
            if place.rank == 0:
                print(f"'{layout.run}' is complete: nothing to train.", file=sys.stderr)  # noqa: T201
            yield None
            return
        job = replace(job, resume=_resume_point(job.checkpoint_dir, resume))
        attempt: Attempt | None = None
        if place.rank == 0:
            if launch is None:
                attempt = start_attempt(
                    layout.run, sys.orig_argv, world_size=place.world_size, nodes=place.nodes
                )
                job = replace(job, attempt=attempt.number)
            job = replace(job, journal=stack.enter_context(Journal(layout.journal)))
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


def complete_run(run: Path) -> None:
    """Write the manifest of a run whose processes all ended well: from now on it is complete.

    Raises:
        FileNotFoundError: The trainer left no model.
    """
    layout = Layout(run)
    checkpoints = list_checkpoints(layout.checkpoints)
    step = checkpoints[-1].step if checkpoints else 0
    files = [layout.model, *layout.model.parent.glob("model_metadata.json")]
    write_manifest(
        run,
        files,
        step=step,
        epoch=checkpoints[-1].epoch if checkpoints else 0,
        attempts=len(list(layout.attempts.glob("*.json"))),
    )


def _run_directory(run_dir: Path | None, model_path: Path | None) -> Path:
    if run_dir is not None:
        return run_dir
    if model_path is not None:
        return model_path.with_suffix(".run")
    raise Refused(
        "There is no directory to train in. Give --run_dir DIRECTORY (or --model_path FILE, "
        "which trains in FILE's name with '.run')."
    )


def _resume_point(directory: Path, resume: str) -> Checkpoint | None:
    own = newest_valid(directory)
    if resume == "auto":
        return own
    if resume == "none":
        if own is not None:
            raise Refused(
                f"--resume none, but '{directory}' holds checkpoints up to step {own.step}. "
                "Use --resume auto to go on, or an empty run directory."
            )
        return None
    path = Path(resume)
    if not path.is_file():
        raise Refused(
            f"--resume {resume!r} is no file. Write auto, none, or the path of a checkpoint."
        )
    if own is None:
        return _foreign_checkpoint(path)
    if own.path.resolve() != path.resolve() and path.resolve().parent == directory.resolve():
        raise Refused(
            f"--resume {resume!r} is not the newest checkpoint, '{own.path}' is. "
            "To go back, resume from it in a new run directory."
        )
    return own  # the run began from `path` and has come further since


def _foreign_checkpoint(path: Path) -> Checkpoint:
    """Describe a checkpoint that another run, or plain Lightning, wrote."""
    import torch

    try:
        content = torch.load(path, map_location="meta", weights_only=True)
        step, epoch = int(content["global_step"]), int(content["epoch"])
    except pickle.UnpicklingError:
        step, epoch = 0, 0  # needs trust: Lightning opens it, and says so
    except (RuntimeError, KeyError, TypeError, EOFError) as error:
        raise Refused(
            f"--resume '{path}' is not a Lightning checkpoint ({error!r}). "
            "Write auto, none, or the path of a checkpoint."
        ) from error
    return Checkpoint(
        path=path, step=step, epoch=epoch, samples=None, world_size=0, bytes=0, checksum=""
    )


def _announce(job: TrainerJob) -> None:
    if job.journal is not None:
        job.journal.attempt(
            job.attempt,
            resume_step=job.resume.step if job.resume is not None else 0,
            world_size=job.ranks.world_size,
            host=platform.node(),
        )


def _listed(value: Any) -> list[Any]:
    if value is None or value is True or value is False:
        return []
    return list(value) if isinstance(value, list | tuple) else [value]
