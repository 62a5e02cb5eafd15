"""Trains a LightningModule on a lean, exact loop: what Lightning's Trainer does, hook by hook.

    trainer = LeanTrainer(max_epochs=3, store="runs/a/checkpoints")
    trainer.fit(model, datamodule, ckpt_path="last")   # goes on, if there is anything

Names are those of Lightning's Trainer where it has them; docs/adapter.md says what is supported.
"""

from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch import LightningDataModule, LightningModule

from ...params.checkpoint import CheckpointParams
from ..environment import ranks
from ..journal import Journal
from ..layout import Layout
from ..refused import Refused
from ..stop import StopRequest
from ..stores.local import LocalStore
from ..stores.store import Lease, Store
from . import restoring
from .assembly import assembled, reporter_of
from .bar import Bar
from .compiled import uncompiled
from .fit import Fit
from .refusals import check
from .running import run
from .settings import checked, listed


class LeanTrainer:
    """See the module.

    Args:
        max_epochs: Epochs to train, -1 for no limit.
        max_steps: Optimizer steps to train, -1 for no limit.
        min_epochs: Before which early stopping has no say; so `min_steps`.
        min_steps: See `min_epochs`.
        accelerator: "auto", "cpu", "gpu" …, as Fabric takes it.
        devices: Processes on this machine, as Fabric takes it; None: as torchrun started them.
        num_nodes: Machines; None: as torchrun started them.
        strategy: As Fabric takes it.
        precision: As Fabric takes it.
        accumulate_grad_batches: Batches whose gradients are added before an optimizer step.
        gradient_clip_val: The greatest norm (or value) of gradients; None: not clipped.
        gradient_clip_algorithm: "norm" or "value".
        limit_train_batches: Batches per epoch at most; a float is a share.
        limit_val_batches: Batches per validation loader at most; a float is a share.
        val_check_interval: Batches, or a share of an epoch, between validations; or a time:
            "DD:HH:MM:SS", a timedelta, or its arguments as a dictionary.
        check_val_every_n_epoch: Epochs between validations; None: `val_check_interval` counts on.
        num_sanity_val_steps: Validation batches before training; -1: all.
        reload_dataloaders_every_n_epochs: Epochs after which loaders are made anew; 0: never.
        log_every_n_steps: Between two values that go to the loggers.
        logger: Lightning loggers besides the journal; True is none.
        enable_progress_bar: Show a bar on stderr, by rank 0.
        default_root_dir: The run directory, for the journal, and for checkpoints unless `store`
            is given; None: nothing is written but what `store` and `journal` say.
        seed: Of the order of samples and of all randomness.
        batch_size: Samples per optimizer step over all processes and accumulated batches; None
            takes each loader's own as the batch over all processes.
        exact: "rank": a resume on as many processes is exact; "world": see `world`.
        grain: Samples per grain of `exact="world"`.
        store: Where checkpoints go, or the directory of a local store.
        checkpoint: When they are saved and which stay.
        journal: Where rank 0 writes steps, metrics and checkpoints.
        stop: The stop request; its handlers are installed while a fit runs.
        lease: The right to write to the store.
        arguments: The model's constructor arguments, for the record that reloads it.
        monitor: The logged value that early stopping looks at; None: it does not stop early.
        patience: Checks without an improvement before it stops.
        mode: "min" or "max" is an improvement.
        min_delta: What counts as one.
        trusted: Whether a checkpoint that needs unpickling of code may be opened.
        plugins: Of Fabric.
    """

    def __init__(
        self,
        *,
        max_epochs: int | None = None,
        max_steps: int = -1,
        min_epochs: int | None = None,
        min_steps: int | None = None,
        accelerator: Any = "auto",
        devices: Any = None,
        num_nodes: int | None = None,
        strategy: Any = "auto",
        precision: Any = None,
        accumulate_grad_batches: int = 1,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
        limit_train_batches: float | None = None,
        limit_val_batches: float | None = None,
        val_check_interval: float | str | timedelta | dict[str, float] | None = None,
        check_val_every_n_epoch: int | None = 1,
        num_sanity_val_steps: int | None = 2,
        reload_dataloaders_every_n_epochs: int = 0,
        log_every_n_steps: int | None = 50,
        logger: Any = None,
        enable_progress_bar: bool = True,
        default_root_dir: str | Path | None = None,
        seed: int = 0,
        batch_size: int | None = None,
        exact: Literal["rank", "world"] = "rank",
        grain: int | None = None,
        store: Store | str | Path | None = None,
        checkpoint: CheckpointParams | None = None,
        journal: Journal | None = None,
        stop: StopRequest | None = None,
        lease: Lease | None = None,
        arguments: dict[str, Any] | None = None,
        monitor: str | None = None,
        patience: int = 3,
        mode: str = "min",
        min_delta: float = 0.0,
        trusted: bool = False,
        plugins: Any = None,
    ) -> None:
        self.settings = checked(
            {
                "max_epochs": max_epochs,
                "max_steps": max_steps,
                "min_epochs": min_epochs,
                "min_steps": min_steps,
                "accumulate_grad_batches": accumulate_grad_batches,
                "gradient_clip_val": gradient_clip_val,
                "gradient_clip_algorithm": gradient_clip_algorithm,
                "limit_train_batches": limit_train_batches,
                "limit_val_batches": limit_val_batches,
                "val_check_interval": val_check_interval,
                "check_val_every_n_epoch": check_val_every_n_epoch,
                "num_sanity_val_steps": num_sanity_val_steps or 0,
                "log_every_n_steps": 50 if log_every_n_steps is None else log_every_n_steps,
                "reload_dataloaders_every_n_epochs": reload_dataloaders_every_n_epochs,
                "default_root_dir": str(default_root_dir or "."),
            }
        )
        here = ranks()
        self._fabric_options = {
            "accelerator": accelerator,
            "devices": here.local_world_size if devices is None else devices,
            "num_nodes": here.nodes if num_nodes is None else num_nodes,
            **{"strategy": strategy, "precision": precision, "plugins": plugins},
        }
        self.run_dir = None if default_root_dir is None else Path(default_root_dir)
        if store is None and self.run_dir is not None:
            store = Layout(self.run_dir).checkpoints
        self.store = store if isinstance(store, Store) or store is None else LocalStore(store)
        self.loggers = listed(logger)
        if exact not in ("rank", "world"):
            raise Refused(f"exact is {exact!r}, expected 'rank' or 'world'.")
        if exact == "world" and self.settings["_val_check_time_interval"] is not None:
            raise Refused(
                "val_check_interval is a time, and exact='world' promises the same validations for "
                "any number of processes, some of which are faster. Give a number of batches."
            )
        self.seed, self.batch_size, self.exact, self.grain = seed, batch_size, exact, grain
        self.checkpoint = checkpoint or CheckpointParams()
        self.journal, self.stop, self.lease = journal, stop or StopRequest(), lease
        self.arguments, self.trusted = arguments, trusted
        self.enable_progress_bar = enable_progress_bar
        self.stopping: dict[str, Any] = {"monitor": monitor, "patience": patience, "mode": mode}
        self.stopping["min_delta"] = min_delta
        self.last_fit: Fit | None = None

    def fit(
        self,
        model: LightningModule,
        train_dataloaders: Any = None,
        val_dataloaders: Any = None,
        datamodule: LightningDataModule | None = None,
        ckpt_path: str | Path | None = None,
    ) -> None:
        """Train to the end, from a checkpoint if there is one.

        Args:
            model: What is trained.
            train_dataloaders: A loader, a collection of them, or a data module.
            val_dataloaders: One or several.
            datamodule: Instead of loaders; without either, the model has its own.
            ckpt_path: A checkpoint of ours or Lightning's; "last" is the newest whole one of the
                store, if it has any.

        Raises:
            UnsupportedProject: The project overrides what cannot be honoured.
            Refused: What was asked for cannot be done; the message says what to do.
            TrainingStopped: It was asked to stop; a fit with `ckpt_path="last"` goes on.
        """
        if isinstance(train_dataloaders, LightningDataModule):
            train_dataloaders, datamodule = None, train_dataloaders
        model = uncompiled(model)
        if datamodule is not None and not (train_dataloaders is val_dataloaders is None):
            raise Refused("fit() got loaders and a data module. Give one of the two.")
        check(
            model,
            datamodule,
            exact=self.exact,
            accumulate=self.settings["accumulate_grad_batches"],
            clips=bool(self.settings["gradient_clip_val"]),
            strategy=self._fabric_options["strategy"],
            train=train_dataloaders,
        )
        torch.set_grad_enabled(True)
        fit = self.last_fit = assembled(
            model,
            datamodule,
            train_dataloaders,
            val_dataloaders,
            settings=self.settings,
            fabric_options=self._fabric_options,
            reporter=reporter_of(self.run_dir, self.journal, self.loggers),
            loggers=self.loggers,
            seed=self.seed,
            batch_size=self.batch_size,
            is_world=self.exact == "world",
            grain=self.grain,
        )
        if self.enable_progress_bar and fit.strategy.is_global_zero:
            fit.bar = Bar(fit.trainer)
        run(
            fit,
            self.store,
            self.checkpoint,
            read=lambda: restoring.asked(ckpt_path, self.store, fit.strategy, trusted=self.trusted),
            stopping=self.stopping,
            journal=self.journal,
            stop=self.stop,
            lease=self.lease,
            arguments=self.arguments,
        )

    def barrier(self, name: str | None = None) -> None:
        """Wait for all ranks of the last fit."""
        if self.last_fit is not None:
            self.last_fit.strategy.barrier(name)

    @property
    def callback_metrics(self) -> dict[str, Any]:
        """What was logged last, by name, in the last fit."""
        return {} if self.last_fit is None else self.last_fit.logged.callback_metrics

    @property
    def global_step(self) -> int:
        """Optimizer steps done by the last fit."""
        return 0 if self.last_fit is None else self.last_fit.progress.steps

    @property
    def current_epoch(self) -> int:
        """Whole epochs done by the last fit."""
        return 0 if self.last_fit is None else self.last_fit.progress.epochs_completed
