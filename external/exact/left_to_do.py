"""What a checkpoint left to do that was saved within the hooks of Lightning's loops, done later.

Each follows the lines of Lightning 2.6 behind the hook that the checkpoint was saved in; the hooks
before it are not called again.
"""

from collections.abc import Callable
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.trainer import call
from lightning.pytorch.utilities.model_helpers import is_overridden

from .loop_position import Moment


def finish_batch(
    trainer: Trainer, left: Moment, data_fetcher: Any, seed: Callable[[str], None]
) -> None:
    """Finish the batch that was saved last (`_TrainingEpochLoop.advance`, `on_advance_end`).

    Args:
        trainer: Its epoch loop is about to take a batch.
        left: When the checkpoint was saved.
        data_fetcher: Of the loop.
        seed: Seeds the generators for a role.
    """
    epoch_loop = trainer.fit_loop.epoch_loop
    if left is Moment.BATCH_END:
        trainer._logger_connector.on_batch_end()
        trainer._logger_connector.update_train_step_metrics()
    if left is Moment.VALIDATION_END:
        seed("validation end")
        _end_validation(trainer)
        epoch_loop._skip_next_val = True
    if left in (Moment.BATCH_END, Moment.VALIDATION, Moment.VALIDATION_END):
        epoch_loop.on_advance_end(data_fetcher)


def end_training(trainer: Trainer, left: Moment, before_epoch: Callable[[], None]) -> None:
    """Do what is left of a training whose limit is reached, where Lightning would do nothing.

    Args:
        trainer: Its fit found nothing left to train.
        left: When the checkpoint was saved.
        before_epoch: What is done before an epoch begins or goes on.
    """
    fit_loop = trainer.fit_loop
    fit_loop.reset()
    fit_loop.on_run_start()
    if left is Moment.EPOCH_END:
        before_epoch()
    else:
        fit_loop.on_advance_start()
        fit_loop.advance()
        fit_loop.on_advance_end()
    fit_loop.on_iteration_done()
    fit_loop.on_run_end()


def finish_epoch(trainer: Trainer) -> None:
    """Do what follows `on_train_epoch_end` (FitLoop.on_advance_end of Lightning 2.6)."""
    fit_loop, connector = trainer.fit_loop, trainer._logger_connector
    epoch_loop, progress = fit_loop.epoch_loop, trainer.fit_loop.epoch_progress.current
    progress.completed -= 1  # the epoch that ends is the current one
    connector._first_loop_iter = None
    connector.on_epoch_end()
    epoch_loop._update_learning_rates("epoch", update_plateau_schedulers=True)
    epoch_loop._batches_that_stepped -= 1
    connector.update_train_epoch_metrics()
    epoch_loop._batches_that_stepped += 1
    progress.completed += 1


def _end_validation(trainer: Trainer) -> None:
    """Call the module's own `on_validation_end`, which comes after the callbacks'."""
    module, val_loop = trainer.lightning_module, trainer.fit_loop.epoch_loop.val_loop
    if not is_overridden("on_validation_end", module):
        return
    val_loop._module_mode.capture(module)
    module.eval()
    trainer.validating = True
    with torch.no_grad():
        call._call_lightning_module_hook(trainer, "on_validation_end")
    trainer.training = True
    val_loop._module_mode.restore(module)
