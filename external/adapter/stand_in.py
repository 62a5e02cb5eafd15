"""What `self.trainer` is to a module on the lean loop: the attributes that code commonly asks for.

Anything else raises an AttributeError that names it and what to do, instead of being None or
quietly wrong.
"""

from collections.abc import Mapping
from typing import Any

import torch
from lightning.pytorch import LightningDataModule, LightningModule
from lightning.pytorch.trainer.states import RunningStage, TrainerFn, TrainerState, TrainerStatus

from .lean_strategy import LeanStrategy
from .progress import FitLoopView, Progress

_REMEDIES = {
    "checkpoint_callback": "checkpoints go by the checkpoint policy; see trainer.store",
    "save_checkpoint": "checkpoints go by the checkpoint policy (CheckpointParams)",
    "profiler": "profile with torch.profiler around LeanTrainer.fit",
    "test": "load the model and call it, or use lightning.Trainer.test",
    "predict": "load the model and call it, or use lightning.Trainer.predict",
    "validate": "load the model and use lightning.Trainer.validate",
    "tune": "use lightning's Tuner before training",
}


class StandIn:
    """See the module.

    Args:
        settings: The trainer's settings by Lightning's names, which read as attributes.
        progress: Where the fit stands.
        module: What is trained.
        datamodule: Its data, if that is a data module of the user's.
    """

    def __init__(
        self,
        settings: Mapping[str, Any],
        progress: Progress,
        module: LightningModule,
        datamodule: LightningDataModule | None,
    ) -> None:
        vars(self).update(settings)
        self.progress = progress
        self.lightning_module = self.model = module
        self.datamodule = datamodule
        self.fit_loop = FitLoopView(
            progress, max_steps=settings["max_steps"], max_epochs=settings["max_epochs"]
        )
        self.state = TrainerState(
            status=TrainerStatus.RUNNING, fn=TrainerFn.FITTING, stage=RunningStage.TRAINING
        )
        self.should_stop = False
        self.barebones = False
        self.fast_dev_run = False
        self.overfit_batches = 0.0
        self.interrupted = False
        self.received_sigterm = False
        self.progress_bar_callback = None
        self.callbacks: list[Any] = []  # none but early stopping
        self.checkpoint_callbacks: list[Any] = []
        self.early_stopping_callback = None
        self.optimizers: list[Any] = []
        self.lr_scheduler_configs: list[Any] = []
        self.loggers: list[Any] = []
        self.train_dataloader: Any = None
        self.val_dataloaders: Any = None
        self.num_training_batches: float = float("inf")
        self.num_val_batches: list[float] = []
        self.num_sanity_val_batches: list[float] = []
        self.val_check_batch: Any = float("inf")  # None: the clock says when
        self.enable_validation = False
        self.logged: Any = None
        self.estimate: Any = None
        self._results: Any = ()  # a module within the module that logs finds no hook of its own

    def connect(self, strategy: LeanStrategy) -> None:
        """Take over what depends on the processes, once they are there."""
        self.strategy = strategy
        self.precision_plugin = strategy.precision_plugin
        self.precision = strategy.precision_plugin.precision
        self.accelerator = strategy.fabric.accelerator
        self.world_size = strategy.world_size
        self.global_rank = strategy.global_rank
        self.local_rank = strategy.local_rank
        self.node_rank = strategy.fabric.node_rank
        self.is_global_zero = strategy.is_global_zero
        self.device = strategy.root_device
        self.num_nodes = int(getattr(strategy.inner, "num_nodes", 1))
        self.num_devices = self.world_size // self.num_nodes

    @property
    def current_epoch(self) -> int:
        """Whole epochs done."""
        return self.progress.epochs_completed

    @property
    def global_step(self) -> int:
        """Optimizer steps done."""
        return self.progress.steps

    @property
    def is_last_batch(self) -> bool:
        """Whether the batch under way is the epoch's last."""
        return self.progress.is_last_batch

    @property
    def logger(self) -> Any:
        """The first logger, or None."""
        return self.loggers[0] if self.loggers else None

    @property
    def log_dir(self) -> str | None:
        """Where the logger, or else the trainer, keeps its files."""
        found = getattr(self.logger, "log_dir", None) or getattr(self.logger, "save_dir", None)
        return found or str(vars(self)["default_root_dir"])

    @property
    def callback_metrics(self) -> dict[str, Any]:
        """What was logged last, by name."""
        return self.logged.callback_metrics  # type: ignore[no-any-return]

    @property
    def logged_metrics(self) -> dict[str, Any]:
        """What went to the loggers last, by name."""
        return self.logged.logged_metrics  # type: ignore[no-any-return]

    @property
    def progress_bar_metrics(self) -> dict[str, Any]:
        """What was logged with prog_bar=True, by name."""
        return self.logged.progress_bar_metrics  # type: ignore[no-any-return]

    @property
    def estimated_stepping_batches(self) -> float:
        """Optimizer steps of the whole training; infinite if nobody knows."""
        return self.estimate()  # type: ignore[no-any-return]

    @property
    def training(self) -> bool:
        """Whether a training batch or epoch is under way."""
        return self.state.stage == RunningStage.TRAINING

    @training.setter
    def training(self, value: bool) -> None:
        self.state.stage = RunningStage.TRAINING if value else None

    @property
    def validating(self) -> bool:
        """Whether a validation of the training is under way."""
        return self.state.stage == RunningStage.VALIDATING

    @validating.setter
    def validating(self, value: bool) -> None:
        self.state.stage = RunningStage.VALIDATING if value else None

    @property
    def sanity_checking(self) -> bool:
        """Whether the validation before training is under way."""
        return self.state.stage == RunningStage.SANITY_CHECKING

    @sanity_checking.setter
    def sanity_checking(self, value: bool) -> None:
        self.state.stage = RunningStage.SANITY_CHECKING if value else None

    testing = predicting = tuning = False

    @property
    def root_device(self) -> torch.device:
        """The device of this process."""
        return self.strategy.root_device

    def print(self, *values: Any, **options: Any) -> None:
        """Print on rank 0."""
        if self.is_global_zero:
            print(*values, **options)  # noqa: T201

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        remedy = _REMEDIES.get(name, "use the hook's arguments, or train with lightning.Trainer")
        raise AttributeError(
            f"self.trainer.{name} is not available on curitorch's lean loop: {remedy}."
        )
