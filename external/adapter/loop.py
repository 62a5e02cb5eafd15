"""The training loop: epochs, batches, validations, in the order of Lightning's Trainer.

Every place where the Trainer calls a hook is a line here. What happens to one batch between two
optimizer steps is `automatic` or `manual`; where a fit is saved and stopped is `saving`.
"""

from typing import Any

from lightning.pytorch.utilities.seed import isolate_rng

from ..exact.loop_position import Moment
from . import restoring
from .automatic import Automatic
from .batches import leave_out_empty
from .fit import Fit
from .manual import Manual
from .saving import Saving
from .validation import Validation
from .world import WorldAutomatic
from .world_validation import WorldValidation


class Loop:
    """Trains one fit to its end."""

    def __init__(self, fit: Fit, saving: Saving) -> None:
        self.fit, self.saving = fit, saving
        self.validation = Validation(fit, saving)
        kind = Automatic if fit.module.automatic_optimization else Manual
        if fit.is_for_any_world:
            kind = WorldAutomatic
            self.validation = WorldValidation(fit, saving)
        self.optimization: Automatic | Manual = kind(fit, saving.stepping)
        settings = vars(fit.trainer)
        self.max_epochs: int = settings["max_epochs"]
        self.max_steps: int = settings["max_steps"]
        self.accumulate: int = settings["accumulate_grad_batches"]
        self.unit = 1

    def run(self) -> None:
        """Train; returns when the limits are reached, the data are over or something stops it."""
        fit, calls, trainer = self.fit, self.fit.calls, self.fit.trainer
        if trainer.num_sanity_val_steps and not fit.is_resumed:
            with isolate_rng():
                self.validation.run(sanity=True)
        if vars(trainer)["limit_train_batches"] == 0:
            return
        batches = fit.data.set_up_train()
        self.accumulate, self.unit = vars(trainer)["accumulate_grad_batches"], fit.data.unit
        if batches.length == 0 or (self.is_over() and fit.left is Moment.REST):
            return
        batches.begin(fit.progress.place()[1])
        if self._validates_in(fit.progress.epochs_completed):
            trainer.validating = True
            self.validation.set_up()
            trainer.training = True
        self.saving.begin()
        if fit.reporter is not None:
            fit.reporter.on_train_start(trainer, fit.module)  # type: ignore[arg-type]
        fit.sow("start")
        calls.on_train_start()
        restoring.restore_epoch(fit)
        is_first = True
        if fit.left is Moment.EPOCH_END:
            self.finish_epoch(fit.progress.epochs_completed - 1, is_whole=True)
            fit.left = Moment.REST
        while fit.left is not Moment.REST or not self.is_over():
            self.run_epoch(begin=not is_first)
            is_first = False
        self.saving.finish()
        calls.on_train_end()

    def is_over(self) -> bool:
        """Return whether no further epoch is to begin."""
        progress = self.fit.progress
        return (
            0 <= self.max_steps <= progress.steps
            or 0 <= self.max_epochs <= progress.epochs_processed
            or (self.fit.trainer.should_stop and self.fit.can_stop_early)
        )

    def run_epoch(self, *, begin: bool) -> None:
        """Run an epoch, or the rest of one that a checkpoint was saved in.

        Args:
            begin: Iterate anew; the first epoch's loader has begun before `on_train_start`.
        """
        fit, progress = self.fit, self.fit.progress
        if progress.epochs_started == progress.epochs_processed:
            fit.sow("epoch")
            self.saving.boundary(epoch_ended=True)
            fit.data.renew_train()
            fit.calls.on_train_epoch_start()
            progress.epochs_started += 1
            progress.ready = progress.completed = 0
            progress.is_last_batch = False
        if begin:
            fit.data.set_up_train().begin(0)
        self.finish_batch()
        if fit.bar is not None:
            fit.bar.begin_epoch(progress.ready)
        self.run_batches()
        fit.logged.end_batches()
        progress.epochs_processed += 1
        fit.sow("epoch end")
        fit.calls.on_train_epoch_end()
        if fit.stopping is not None:
            fit.stopping.on_train_epoch_end(fit.trainer, fit.module)
        self.finish_epoch(progress.epochs_completed, is_whole=self._is_last())

    def finish_epoch(self, epoch: int, *, is_whole: bool) -> None:
        """Do what comes after the hooks that end the `epoch`.

        Args:
            epoch: Its number, from 0.
            is_whole: It came to its last batch, and was not ended before by a limit of steps.
        """
        fit, progress = self.fit, self.fit.progress
        progress.epochs_completed = epoch  # while its values are logged
        if fit.schedulers is not None and is_whole:
            fit.schedulers.update("epoch", epoch + 1, plateau=True)
        fit.log(fit.logged.epoch_end("train"))
        progress.epochs_completed = progress.epochs_processed

    def run_batches(self) -> None:
        """Run the batches that are left of the epoch."""
        fit, progress, logged, calls = self.fit, self.fit.progress, self.fit.logged, self.fit.calls
        trainer, saving, schedulers = fit.trainer, self.saving, fit.schedulers
        batches, transfer = fit.data.set_up_train(), fit.transfer
        run, accumulate = self.optimization.run, self.accumulate
        is_automatic = fit.module.automatic_optimization
        start_hook = calls.on_train_batch_start if calls.has("on_train_batch_start") else None
        end_hook = calls.on_train_batch_end if calls.has("on_train_batch_end") else None
        by_step = bool(schedulers and schedulers.by_step)
        by_step_on_plateau = bool(schedulers and schedulers.by_step_on_plateau)
        reporter, bar = fit.reporter, fit.bar
        session = None if reporter is None else reporter.session
        last, max_steps = trainer.num_training_batches, self.max_steps
        may_validate = trainer.enable_validation and self._validates_in(progress.epochs_completed)
        is_over = self.is_epoch_over()
        while not is_over:
            if progress.ready:
                saving.boundary(epoch_ended=False)
            try:
                batch = batches.next()
            except StopIteration:
                break
            number, progress.is_last_batch = progress.ready, batches.is_over
            batch = transfer(batch, 0)
            progress.ready += 1
            progress.total += 1
            logged.begin_batch(batch)
            if session is not None and not session.is_started:
                session.start_step()
            is_empty = batch is None
            is_left = not is_empty and start_hook is not None and start_hook(batch, number) == -1
            is_last = batches.is_over or number + 1 == last
            accumulates = (number + 1) % accumulate != 0 and not is_last
            outputs: Any = None
            if is_left:
                progress.is_last_batch = is_last = True
                accumulates = False
            elif is_empty:
                leave_out_empty(fit.strategy.world_size, is_for_any_world=fit.is_for_any_world)
            else:
                outputs = run(batch, number, accumulates=accumulates and is_automatic)
            if by_step and not accumulates:
                schedulers.update("step", (number + 1) // self.unit, plateau=False)  # type: ignore[union-attr]
            if is_last and schedulers is not None:
                schedulers.update("epoch", progress.epochs_completed + 1, plateau=False)
            if is_left:
                break
            if reporter is not None and session is not None:
                reporter.on_train_batch_end(trainer, fit.module, outputs, batch, number)  # type: ignore[arg-type]
            if end_hook is not None:
                end_hook(outputs, batch, number)
            progress.completed += 1
            if bar is not None:
                bar.advance()
            values = logged.after_batch(
                stepped=not (accumulates and is_automatic), should_stop=trainer.should_stop
            )
            if values is not None:
                fit.log(values)
            if may_validate and self._is_validation_due():
                self.validate(accumulates=accumulates)
            if by_step_on_plateau and not accumulates:
                schedulers.update("step", (number + 1) // self.unit, plateau=True)  # type: ignore[union-attr]
            if not accumulates:
                progress.stepped_batches += 1
                logged.batches_that_stepped = progress.stepped_batches
            is_over = is_last or trainer.should_stop or 0 <= max_steps <= progress.steps
            is_over = is_over and self.is_epoch_over()

    def finish_batch(self) -> None:
        """Do what is left of the batch that the checkpoint was saved in."""
        fit, left = self.fit, self.fit.left
        fit.left = Moment.REST
        if left not in (Moment.BATCH_END, Moment.VALIDATION, Moment.VALIDATION_END):
            return
        progress = fit.progress
        is_last = self._is_last()
        accumulates = progress.ready % self.accumulate != 0 and not is_last
        if left is Moment.BATCH_END:
            stepped = not (accumulates and fit.module.automatic_optimization)
            fit.log(fit.logged.after_batch(stepped=stepped))
        if left is Moment.VALIDATION_END:
            self.validation.end_only()
        elif self._is_validation_due():
            self.validate(accumulates=accumulates)
        if fit.schedulers is not None and not accumulates:
            fit.schedulers.update("step", progress.ready // self.unit, plateau=True)
        if not accumulates:
            progress.stepped_batches += 1
            fit.logged.batches_that_stepped = progress.stepped_batches

    def validate(self, *, accumulates: bool) -> None:
        """Run a validation of the training, with gradients cleared unless they are gathered."""
        fit = self.fit
        fit.trainer.validating = True
        if not accumulates:
            if fit.calls.has("on_validation_model_zero_grad"):
                fit.calls.on_validation_model_zero_grad()
            else:
                fit.module.zero_grad()
        self.validation.run()
        fit.trainer.training = True

    def is_epoch_over(self) -> bool:
        """Return whether the epoch under way has no further batch."""
        progress = self.fit.progress
        if progress.ready % self.unit:
            return False  # within a global batch
        if progress.ready and self._is_last():
            return True
        if 0 <= self.max_steps <= progress.steps:
            return True
        return self.fit.trainer.should_stop and self.fit.can_stop_early

    def _is_last(self) -> bool:
        progress = self.fit.progress
        return progress.is_last_batch or progress.ready == self.fit.trainer.num_training_batches

    def _validates_in(self, epoch: int) -> bool:
        every = vars(self.fit.trainer)["check_val_every_n_epoch"]
        return every is None or (epoch + 1) % every == 0

    def _is_validation_due(self) -> bool:
        """Return whether to validate after the batch that is over (Lightning's rule)."""
        trainer, progress = self.fit.trainer, self.fit.progress
        if progress.ready % self.unit:
            return False
        if not trainer.enable_validation or not self._validates_in(progress.epochs_completed):
            return False
        check = trainer.val_check_batch
        is_unknown = check == float("inf")
        if progress.is_last_batch and is_unknown:
            return True
        if trainer.should_stop and self.fit.can_stop_early:
            return True
        if self.fit.clock is not None:
            return self.fit.clock.is_due(progress.total)
        if is_unknown:
            limit = vars(trainer)["limit_train_batches"]
            by_limit = isinstance(limit, int) and progress.ready % limit == 0
            return by_limit or progress.is_last_batch
        over_epochs = vars(trainer)["check_val_every_n_epoch"] is None
        done = progress.total if over_epochs else progress.ready
        return bool(done % check == 0)
