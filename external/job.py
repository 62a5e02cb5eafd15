"""A trainer's job: where it reads and writes, where it resumes, who its ranks are.

The object that `trainer_options` hands to a click trainer. `job.trainer()` makes a Lightning
Trainer that reports and checkpoints; `job.fit()` trains, resumes and leaves a complete run.
"""

import contextlib
import pickle
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING, Any

from ..params.checkpoint import CheckpointParams
from .checkpoint import Checkpoint
from .completion import keep_model
from .engine import write_engine
from .environment import Ranks
from .journal import Journal
from .layout import Layout
from .refused import Refused
from .stop import StopRequest
from .stores.store import Lease, Store

if TYPE_CHECKING:
    from lightning.pytorch import LightningDataModule, LightningModule, Trainer

    from .adapter import LeanTrainer


@dataclass(frozen=True)
class TrainerJob:
    """One trainer process's view of a training run.

    Attributes:
        layout: Where things lie in the run directory.
        dataset_path: What `--dataset_path` named, or None.
        model_path: Where the final model goes, in the run directory and here.
        store: Where checkpoints go; a local store in the run directory unless told otherwise.
        policy: When they are saved and how many are kept.
        resume: The checkpoint that training goes on from, or None for a beginning.
        trusted: Whether a checkpoint that needs unpickling of code may be opened.
        ranks: This process's place.
        managed: Whether a stage launched this process and will complete the run.
        journal: The open journal on rank 0, None elsewhere.
        lease: The right to write to the store on rank 0, None elsewhere.
        attempt: The number of this attempt.
    """

    layout: Layout
    dataset_path: Path | None
    model_path: Path
    store: Store
    policy: CheckpointParams
    resume: Checkpoint | None
    trusted: bool
    ranks: Ranks
    managed: bool
    attempt: int = 0
    journal: Journal | None = None
    lease: Lease | None = None
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
        from lightning.pytorch.plugins import CheckpointIO

        from .curifactory_logger import CurifactoryLogger
        from .periodic_checkpoint import PeriodicCheckpoint
        from .stores.verified_io import VerifiedCheckpointIO

        loggers = _listed(options.pop("logger", None))
        logger = CurifactoryLogger.of(self.layout.run, self.journal, loggers)
        checkpoint = PeriodicCheckpoint(
            self.store,
            self.policy,
            journal=self.journal,
            lease=self.lease,
            stop=self.stop,
            arguments=None if arguments is None else dict(arguments),
        )
        plugins = _listed(options.pop("plugins", None))
        if not any(isinstance(plugin, CheckpointIO) for plugin in plugins):
            plugins.append(VerifiedCheckpointIO())  # of whatever else saves, such as callbacks
        ours: dict[str, Any] = {
            "callbacks": [*_listed(options.pop("callbacks", None)), logger, checkpoint],
            "logger": [logger, *(each for each in loggers if each is not logger)],
            "plugins": plugins,
            "devices": self.ranks.local_world_size,
            "num_nodes": self.ranks.nodes,
            "default_root_dir": self.layout.run,
            "enable_checkpointing": False,  # PeriodicCheckpoint is the one that saves
            "enable_progress_bar": not self.managed,  # a stage draws its own from the journal
            "use_distributed_sampler": False,  # `loaders` orders the samples
            "log_every_n_steps": 10,
        }
        return Trainer(**{**ours, **options})

    def lean_trainer(
        self, *, arguments: Mapping[str, Any] | None = None, **options: Any
    ) -> "LeanTrainer":
        """Return a `LeanTrainer` for this job, for `fit`; `options` are its own and win over ours.

        Args:
            arguments: As of `trainer`.
            options: Of `LeanTrainer`.
        """
        from .adapter import LeanTrainer

        ours: dict[str, Any] = {
            "arguments": None if arguments is None else dict(arguments),
            "store": self.store,
            "checkpoint": self.policy,
            "journal": self.journal,
            "lease": self.lease,
            "stop": self.stop,
            "trusted": self.trusted,
            "devices": self.ranks.local_world_size,
            "num_nodes": self.ranks.nodes,
            "default_root_dir": self.layout.run,
            "enable_progress_bar": not self.managed,
            "log_every_n_steps": 10,
        }
        return LeanTrainer(**{**ours, **options})

    def fit(
        self,
        trainer: "Trainer | LeanTrainer",
        model: "LightningModule",
        data: object = None,
        *,
        batch_size: int | None = None,
        seed: int = 0,
    ) -> None:
        """Train to the end, from the checkpoint of `resume`, and write the final model.

        Args:
            trainer: From `self.trainer()`, or from `self.lean_trainer()`.
            model: What is trained.
            data: A LightningDataModule, loaders (see `LoaderData`), or None: the model has them.
            batch_size: Samples per optimizer step over all ranks and accumulated batches; None
                takes the loader's own as the batch over all ranks.
            seed: Of the order of samples.

        Raises:
            Refused: The checkpoint cannot be opened without more trust, or is of another model.
            TrainingStopped: The job was asked to stop; call it again to go on.
        """
        from lightning.pytorch import Trainer

        with self._refusing_what_does_not_fit(model):
            if isinstance(trainer, Trainer):
                write_engine(self.journal, "lightning")
                self._fit_by_lightning(trainer, model, data, batch_size=batch_size, seed=seed)
                barrier = trainer.strategy.barrier
            else:
                write_engine(self.journal, "lean")
                trainer.batch_size, trainer.seed = batch_size, seed
                begin = None if self.resume is None else self.resume.path
                trainer.fit(model, datamodule=_as_data_module(data, model), ckpt_path=begin)
                barrier = trainer.barrier
        barrier("curitorch: every rank has trained to the end")
        if self.ranks.rank == 0:
            keep_model(
                self.store,
                trainer.global_step,
                {self.layout.model, self.model_path},
                journal=self.journal,
            )

    @contextlib.contextmanager
    def _refusing_what_does_not_fit(self, model: "LightningModule") -> Iterator[None]:
        """Say of a checkpoint that torch cannot load into the model or optimizer why that may be.

        Raises:
            Refused: It was saved by other code.
        """
        try:
            yield
        except (RuntimeError, ValueError) as error:
            # As torch begins what it says, of the model itself and of its optimizers.
            unfit = f"Error(s) in loading state_dict for {type(model).__name__}:"
            if self.resume is None or not str(error).startswith((unfit, "loaded state dict ")):
                raise
            why = shorten(str(error), 500, placeholder=" …")
            raise Refused(
                f"'{self.resume.path}' (step {self.resume.step}) does not fit what the code makes "
                f"now. Undo what changed since it was saved, or train anew: in another run "
                f"directory, in an experiment with --overwrite-stage. {why}"
            ) from error

    def _fit_by_lightning(
        self,
        trainer: "Trainer",
        model: "LightningModule",
        data: object,
        *,
        batch_size: int | None,
        seed: int,
    ) -> None:
        from .exact.loaders import put_in_order

        if self.resume is not None and self.resume.path.is_dir():
            raise Refused(
                f"'{self.resume.path}' was saved in parts, by the lean engine with strategy "
                "'fsdp2', and is read by that engine only. Go on with --engine lean."
            )
        module = _as_data_module(data, model)
        per_load = None if batch_size is None else batch_size // trainer.accumulate_grad_batches
        put_in_order(module, trainer, batch_size=per_load, seed=seed)
        try:
            trainer.fit(
                model,
                datamodule=module,
                ckpt_path=None if self.resume is None else self.resume.path,
                weights_only=not self.trusted,
            )
        except pickle.UnpicklingError as error:
            raise Refused(
                f"'{self.resume and self.resume.path}' holds more than tensors and plain data: "
                f"{str(error).splitlines()[0]} Pass --trusted if you trust where it comes from."
            ) from error


def _as_data_module(data: object, model: "LightningModule") -> "LightningDataModule":
    """Return a user's data as one data module; without any, the model's own loaders."""
    from lightning.pytorch import LightningDataModule

    from .data_modules import LoaderData, ModelData

    if data is None:
        return ModelData(model)
    return data if isinstance(data, LightningDataModule) else LoaderData(data)


def _listed(value: Any) -> list[Any]:
    if value is None or value is True or value is False:
        return []
    return list(value) if isinstance(value, list | tuple) else [value]
