"""The hooks around a lean fit: what prepares its data, its model and its optimizers, and their end.

The order is that of Lightning's Trainer (trainer.py, `_run`).
"""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

from lightning.pytorch.callbacks import EarlyStopping
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.loggers.utilities import _log_hyperparams
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.model_helpers import is_overridden

from ..stop import StopRequest
from . import restoring
from .fit import Fit
from .hook_calls import HookCalls
from .optimizers import configured
from .saving import Saving
from .schedulers import Schedulers
from .transfer import transfer_to

Checkpoint = dict[str, Any]


def set_up(
    fit: Fit, read: Callable[[], Checkpoint | None], *, stopping: dict[str, Any]
) -> Checkpoint | None:
    """Call the hooks that set up, restore the model, and make its optimizers.

    Args:
        fit: As `assembly` made it.
        read: Reads the checkpoint that the fit goes on from, if there is one.
        stopping: Of EarlyStopping; a monitor of None: there is none.

    Returns:
        The checkpoint, of which the rest is to be restored.
    """
    module, datamodule, strategy = fit.module, fit.datamodule, fit.strategy
    for each in (datamodule, module):
        if each is not None and is_overridden("prepare_data", each):
            is_per_node = each.prepare_data_per_node
            if (strategy.local_rank if is_per_node else strategy.global_rank) == 0:
                each.prepare_data()
    strategy.barrier("prepare_data")
    if datamodule is not None:
        datamodule.setup(stage=TrainerFn.FITTING)
    fit.calls.call("setup", lambda: module.setup(stage=TrainerFn.FITTING))
    if is_overridden("configure_model", module):
        with strategy.fabric.init_module():
            fit.calls.call("configure_model", module.configure_model)
    strategy.inner.precision.convert_module(module)
    checkpoint = read()
    if checkpoint is not None:
        fit.is_resumed = True
        restoring.restore_model(fit, checkpoint)
    strategy.inner.module_to_device(module)
    strategy.wrap()
    _set_up_optimizers(fit)
    fit.calls = HookCalls(module, fit.logged)
    fit.transfer = transfer_to(
        strategy.root_device,
        module=module,
        datamodule=datamodule,
        precision=fit.precision,
        calls=fit.calls,
    )
    if stopping["monitor"] is not None:
        trainer: Any = fit.trainer
        fit.stopping = trainer.early_stopping_callback = EarlyStopping(**stopping)
        trainer.callbacks.append(fit.stopping)
        fit.stopping.setup(trainer, module, stage="fit")
    return checkpoint


def _set_up_optimizers(fit: Fit) -> None:
    optimizers, configs = fit.calls.call("configure_optimizers", lambda: configured(fit.module))
    trainer = fit.trainer
    trainer.optimizers = [
        each.optimizer if isinstance(each, LightningOptimizer) else each for each in optimizers
    ]
    trainer.lr_scheduler_configs = configs
    fit.strategy._lightning_optimizers = [
        LightningOptimizer._to_lightning_optimizer(each, fit.strategy)  # type: ignore[arg-type]
        for each in optimizers
    ]
    if configs and fit.module.automatic_optimization:
        step = fit.calls.named("lr_scheduler_step", fit.module.lr_scheduler_step)
        fit.schedulers = Schedulers(configs, step=step, metrics=lambda: fit.logged.callback_metrics)


def begin(fit: Fit, checkpoint: Checkpoint | None) -> None:
    """Call the hooks right before training, and restore the rest of the checkpoint."""
    fit.calls.on_fit_start()
    _log_hyperparams(fit.trainer)  # type: ignore[arg-type]
    if checkpoint is not None:
        restoring.restore_training(fit, checkpoint)
    fit.strategy.barrier("run")
    fit.module.zero_grad()


def tear_down(fit: Fit) -> None:
    """Call the hooks behind a fit that trained to its end."""
    module, datamodule = fit.module, fit.datamodule
    module.cpu()
    fit.calls.on_fit_end()
    if datamodule is not None:
        datamodule.teardown(stage=TrainerFn.FITTING)
    fit.calls.call("teardown", lambda: module.teardown(stage=TrainerFn.FITTING))
    for logger in fit.trainer.loggers:
        logger.finalize("success")


def end_after(error: BaseException, fit: Fit, saving: Saving | None) -> None:
    """Save what can be saved after `error`, and let the data module know of it."""
    for logger in fit.trainer.loggers:
        logger.finalize("failed")
    if fit.datamodule is not None and hasattr(fit.datamodule, "on_exception"):
        fit.datamodule.on_exception(error)
    if saving is not None:
        saving.rescue(error)
        saving.writer.close_after(error)


@contextlib.contextmanager
def listening(stop: StopRequest) -> Iterator[None]:
    """Let signals go to `stop`, and afterwards to whoever had them before."""
    before = {number: signal.getsignal(number) for number in stop.SIGNALS}
    is_main = threading.current_thread() is threading.main_thread()  # only that one may
    if is_main:
        stop.listen()
    try:
        yield
    finally:
        for number, handler in before.items():
            if is_main and handler is not None:
                signal.signal(number, handler)
