"""The SDK for Lightning: one callback reports steps and metrics and uploads every checkpoint.

Trainer(callbacks=[LightningCallback()])
"""

import functools
import os
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer

from . import api
from .lightning_logger import SessionLogger, planned_steps


class LightningCallback(SessionLogger):
    """Reports to whoever launched this process, or locally.

    What is logged with `self.log` is reported; what `ModelCheckpoint`, `trainer.save_checkpoint`
    or anything else saves is uploaded, the first file of a step. When all ranks are asked to save,
    they do after the same step, and end.

    Args:
        directory: Where the checkpoint of an emergency goes; `CKPT_DIR` without it, or the
            trainer's root directory.
    """

    def __init__(self, directory: str | os.PathLike[str] | None = None) -> None:
        super().__init__()
        self._directory = directory

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Become one of the trainer's loggers, and see every file that it saves."""
        if stage != "fit":
            return
        if self not in trainer.loggers:
            trainer.loggers = [*trainer.loggers, self]
        if not hasattr(trainer.save_checkpoint, "__wrapped__"):
            trainer.save_checkpoint = self._uploading(trainer.save_checkpoint)  # type: ignore[method-assign]
        if os.environ.get("CURITORCH_RUN_DIR") or api.current() is not None:
            # Lightning's own SIGTERM handler ends each rank by itself.
            trainer._signal_connector.register_signal_handlers = lambda: None  # type: ignore[method-assign]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin the session, unless the script did."""
        if api.current() is None:
            api.init(planned_steps(trainer), processed_steps=trainer.global_step)
        self.session = api.current()
        super().on_train_start(trainer, pl_module)

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: object,
        batch: object,
        batch_idx: int,
    ) -> None:
        """End the step, and save if all ranks are asked to."""
        before = self._last_step
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        session = self.session
        if session is not None and self._last_step != before and session.is_emergency_save():
            folder = self._directory or os.environ.get("CKPT_DIR") or trainer.default_root_dir
            trainer.save_checkpoint(Path(folder) / f"emergency-step={trainer.global_step}.ckpt")

    def _uploading(self, save: Any) -> Any:
        @functools.wraps(save)
        def save_checkpoint(filepath: Any, *args: Any, **kwargs: Any) -> None:
            save(filepath, *args, **kwargs)
            session = self.session
            if session is not None and not session.has_uploaded and "://" not in str(filepath):
                session.upload_checkpoint(filepath)

        return save_checkpoint
