"""One validation of a lean fit: every loader, batch by batch, without gradients.

The order of hooks is that of Lightning's evaluation loop (docs of the adapter: the traces).
"""

import inspect
from typing import Any

import torch
from lightning.fabric.utilities.data import _set_sampler_epoch
from lightning.pytorch.trainer.states import RunningStage
from lightning.pytorch.utilities.signature_utils import is_param_in_hook_signature

from ..exact.seeded_loader import SeededLoader
from .batches import Batches
from .fit import Fit
from .saving import Saving

_WITH_LOADER = ("on_validation_batch_start", "on_validation_batch_end", "validation_step")


class Validation:
    """Runs the validations of one fit."""

    def __init__(self, fit: Fit, saving: Saving) -> None:
        self._fit, self._saving = fit, saving
        self.is_enabled = fit.trainer.enable_validation
        self._step = fit.strategy.step_of("validation_step")
        self._takes_number = is_param_in_hook_signature(
            fit.module.validation_step, "batch_idx", min_args=2
        )

    def set_up(self) -> list[Batches]:
        """Make the loaders if they are not made yet; none if there is nothing to validate."""
        if not self.is_enabled:
            return []
        loaders = self._fit.data.set_up_validation()
        return loaders if sum(each.length for each in loaders) else []

    @torch.no_grad()
    def run(self, *, sanity: bool = False) -> None:
        """Run one validation; the sanity check is a short one that leaves nothing behind."""
        trainer = self._fit.trainer
        stage = trainer.state.stage
        trainer.state.stage = RunningStage.SANITY_CHECKING if sanity else RunningStage.VALIDATING
        self._run(self.set_up(), sanity=sanity)
        trainer.state.stage = stage
        if self._fit.clock is not None:
            self._fit.clock.begin()

    def _run(self, loaders: list[Batches], *, sanity: bool) -> None:
        fit, trainer = self._fit, self._fit.trainer
        limits = [
            min(trainer.num_sanity_val_steps, each.length) if sanity else each.length
            for each in loaders
        ]
        if not sum(limits):
            return
        module, calls, logged = fit.module, fit.calls, fit.logged
        several = len(loaders) > 1
        _check_signatures(module, several=several)
        for each in loaders:
            _set_sampler_epoch(each.loader, fit.progress.epochs_processed)
        loaders[0].begin(0)  # workers begin to load; the others follow when it is their turn
        modes = {name: each.training for name, each in module.named_modules()}
        logged.begin_validation(sanity=sanity)
        if calls.has("on_validation_model_eval"):
            calls.on_validation_model_eval()
        else:
            module.eval()
        if not sanity:
            self._saving.validation_begins()
            fit.sow("validation")
        calls.on_validation_start()
        calls.on_validation_epoch_start()
        for index, (batches, limit) in enumerate(zip(loaders, limits, strict=True)):
            if index:
                batches.begin(0)
            self._run_loader(batches, limit, (index,) if several else (), sanity=sanity)
        logged.end_batches()
        calls.on_validation_epoch_end()
        values = logged.epoch_end("validate")
        if not sanity:
            fit.log(values)
            self._saving.before_validation = None
            if fit.stopping is not None:
                fit.stopping.on_validation_end(trainer, module)
            fit.sow("validation end")
        calls.on_validation_end()
        logged.end_validation()
        if calls.has("on_validation_model_train"):
            calls.on_validation_model_train()
        else:
            for name, each in module.named_modules():
                each.training = modes.get(name, each.training)

    @torch.no_grad()
    def end_only(self) -> None:
        """Call the hook that is left of a validation after which a checkpoint was saved."""
        fit, module = self._fit, self._fit.module
        fit.sow("validation end")
        if not fit.calls.has("on_validation_end"):
            return
        modes = {name: each.training for name, each in module.named_modules()}
        module.eval()
        stage, fit.trainer.state.stage = fit.trainer.state.stage, RunningStage.VALIDATING
        fit.calls.on_validation_end()
        fit.trainer.state.stage = stage
        for name, each in module.named_modules():
            each.training = modes.get(name, each.training)

    def _run_loader(
        self, batches: Batches, limit: float, index: tuple[int, ...], *, sanity: bool
    ) -> None:
        """Run the batches of one loader; `index` is its number where there are several."""
        fit, calls, logged = self._fit, self._fit.calls, self._fit.logged
        context, number = fit.precision.context, 0
        loader_idx = index[0] if index else 0
        while number < limit:
            if not sanity:
                self._saving.within_validation(can_stop=self._can_stop(batches))
            try:
                batch = batches.next()
            except StopIteration:
                return
            batch = fit.transfer(batch, loader_idx)
            logged.begin_batch(batch, loader_idx if index else None)
            calls.on_validation_batch_start(batch, number, *index)
            arguments = (batch, number, *index) if self._takes_number else (batch, *index)
            logged.hook = "validation_step"
            if context is None:
                output = self._step(*arguments)
            else:
                with context():
                    output = self._step(*arguments)
            logged.hook = None
            calls.on_validation_batch_end(output, batch, number, *index)
            values = logged.after_batch()
            if values is not None:
                fit.log(values, of_batch=True)
            number += 1

    def _can_stop(self, batches: Batches) -> bool:
        """Return whether nothing is logged twice, and the ranks surely come to the same batches."""
        if self._fit.strategy.world_size > 1 and not isinstance(batches.loader, SeededLoader):
            return False
        return not any(
            each.on_step and each.logger and not each.is_reset
            for each in self._fit.logged._validate.values()
        )


def _check_signatures(module: Any, *, several: bool) -> None:
    """Refuse steps that do not take the loader's number where there are several loaders.

    Raises:
        RuntimeError: Such a step or hook, or one that needs a number where there is none.
    """
    for name in _WITH_LOADER:
        hook = getattr(module, name)
        takes = is_param_in_hook_signature(hook, "dataloader_idx")
        if several and not takes:
            raise RuntimeError(
                f"There are several validation loaders, but {name} has no dataloader_idx. Write "
                f"def {name}(self, …, dataloader_idx=0)."
            )
        found = inspect.signature(hook).parameters.get("dataloader_idx")
        if not several and found is not None and found.default is inspect.Parameter.empty:
            raise RuntimeError(
                f"There is one validation loader, but {name} needs a dataloader_idx. Leave it out, "
                "or write dataloader_idx=0."
            )
