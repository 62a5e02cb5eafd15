"""A Lightning callback that makes a resumed fit go on as if it had never stopped.

It is the first of a Trainer's callbacks. Whoever saves a checkpoint, it adds what Lightning leaves
out (`unfinished_epoch`, per rank) and in which moment of the loop it was saved (`loop_position`);
on resume it brings the loops to rest, puts back what was known, does what was left to do, and
goes on. Hooks find the generators seeded by where the training stands, as the batches do.

In a checkpoint:

    {"schema": 1, "moment": "rest", "cut": False, "world_size": 2,
     "order": {"seed": 3, "samples": 160, …}, "ranks": [{"logged": […], …}, {…}]}
"""

import copy
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import GradientAccumulationScheduler
from lightning.pytorch.utilities import rank_zero_warn

from ..schema import check_schema
from . import unfinished_epoch
from .gradient_order import keep_buckets
from .left_to_do import end_training, finish_batch, finish_epoch
from .loop_position import Moment, moment, moment_of_plain_file, position, settle, was_cut
from .not_exact import say_what_is_not_exact
from .randomness import derive_seed, seed_generators
from .rank_parts import gathered, part_of
from .remembered import Remembered
from .switches import KEY as SWITCHES
from .switches import compare, switches

KEY = "curitorch_unfinished"
"""Where a checkpoint has what is added here."""
SCHEMA = 1


def install(
    trainer: Trainer, *, seed: int | None = None, first_buckets: bool = True
) -> "ExactResume":
    """Return the callback of `trainer`, which gets one if it has none; before its fit.

    Args:
        trainer: Whose fit shall be exact.
        seed: Of all randomness in hooks; None: the generators are left as they are.
        first_buckets: See `gradient_order`; False: the caller uses `gradient_layout`.
    """
    found = next((c for c in trainer.callbacks if isinstance(c, ExactResume)), None)  # type: ignore[attr-defined]
    if found is None:
        found = ExactResume()
        # A new list: the old one may be iterated over.
        trainer.callbacks = [found, *trainer.callbacks]  # type: ignore[attr-defined]
        found.attach(trainer)
        if first_buckets:
            keep_buckets(trainer)
    if seed is not None:
        found.seed = seed
    return found


class ExactResume(Callback):
    """See the module; `install` puts it into a Trainer."""

    def __init__(self) -> None:
        self.seed: int | None = None
        self.loaded: dict[str, Any] | None = None
        """This rank's part of the checkpoint that the fit goes on from."""
        self._order: dict[str, Any] | None = None
        self._left = Moment.REST
        self._begins = True
        self._remembered = Remembered()
        self._sanity_steps: float | None = None

    def attach(self, trainer: Trainer) -> None:
        """Be called where Lightning has no hook: before an epoch and before its first batch."""
        fit_loop, epoch_loop = trainer.fit_loop, trainer.fit_loop.epoch_loop
        begin_epoch, begin_batches = fit_loop.on_advance_start, epoch_loop.on_run_start
        run = fit_loop.run

        def run_and_finish() -> None:
            run()
            if self._begins and self._left is not Moment.REST and self.loaded is not None:
                end_training(trainer, self._left, lambda: self._before_epoch(trainer))

        def on_advance_start() -> None:
            self._before_epoch(trainer)
            begin_epoch()

        def on_run_start(data_fetcher: Any) -> None:
            begin_batches(data_fetcher)
            epoch_loop.restarting = False  # what is to be done after it is done here
            left, self._left = self._left, Moment.REST
            finish_batch(trainer, left, data_fetcher, lambda role: self._seed(trainer, role))

        fit_loop.run = run_and_finish  # type: ignore[method-assign]
        fit_loop.on_advance_start = on_advance_start  # type: ignore[method-assign]
        epoch_loop.on_run_start = on_run_start  # type: ignore[method-assign]

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Forget an earlier fit."""
        self.loaded = self._order = None
        self._left, self._begins, self._remembered = Moment.REST, True, Remembered()

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Bring the loaded loops to rest, and take this rank's part."""
        if trainer.state.fn != "fit":
            return
        if trainer.is_global_zero:
            compare(checkpoint.get(SWITCHES), switches(trainer.strategy.root_device))
        saved = checkpoint.get(KEY)
        loops = checkpoint["loops"]["fit_loop"]
        when, cut = moment_of_plain_file(loops), True
        if saved is not None:
            check_schema(saved, where="The checkpoint's state of the epoch", newest=SCHEMA)
            when, cut = Moment(saved["moment"]), saved["cut"]
            self.loaded, self._order = part_of(trainer, saved), saved["order"]
            if self.loaded is not None:
                unfinished_epoch.restore_stop(trainer, self.loaded, at_rest=when is Moment.REST)
        still = trainer.should_stop or 0 <= trainer.fit_loop.max_steps <= checkpoint["global_step"]
        self._left = settle(loops, when, cut=cut and not still)
        if self._left is Moment.STEP:
            rank_zero_warn(
                "The checkpoint was saved in the middle of a batch, by an error perhaps: its "
                "weights may be those before or behind that step, and the resume is not exact."
            )
        self._sanity_steps, trainer.num_sanity_val_steps = trainer.num_sanity_val_steps, 0

    def take_data_state(self) -> Any:
        """Return where an order of the user's own was left, once."""
        return None if self.loaded is None else self.loaded.pop("data", None)

    def compare_order(self, order: dict[str, Any]) -> None:
        """Say so if samples come in another order than before."""
        before, self._order = self._order, None
        if before is not None and before != order:
            changes = [
                f"{n}={before.get(n)!r} is {order[n]!r} now"
                for n in order
                if before.get(n) != order[n]
            ]
            rank_zero_warn(
                f"The order of samples is not the one that the checkpoint was trained in: "
                f"{', '.join(changes)}. The resume is not exact, and the epoch under way may "
                "repeat or leave out samples."
            )

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Load weights of double precision again: they went into a module of single precision."""
        loaded = trainer._checkpoint_connector._loaded_checkpoint
        if loaded and trainer.precision == "64-true":
            trainer.strategy.load_model_state_dict(loaded, strict=pl_module.strict_loading)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Seed the hooks that begin a fit, the same ones for each attempt."""
        if self._sanity_steps is not None:  # which a resume does without
            trainer.num_sanity_val_steps, self._sanity_steps = self._sanity_steps, None
        self._seed(trainer, "start")
        say_what_is_not_exact(trainer)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Remember the boundary, for a checkpoint after an error."""
        self._remembered.boundary(trainer)

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: object, batch_idx: int
    ) -> None:
        """Remember the boundary, for a checkpoint after an error."""
        self._remembered.boundary(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Seed the hooks that end an epoch: perhaps the resume had only that left to do."""
        self._seed(trainer, "epoch end")

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Remember what was before, for a checkpoint saved within; seed the validation."""
        if trainer.state.fn != "fit" or trainer.sanity_checking:
            return
        self._remembered.validation_begins(trainer)
        self._seed(trainer, "validation")

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Seed what follows."""
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self._remembered.is_validated = True
            self._seed(trainer, "validation end")

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """From here no rank waits for another."""
        self._remembered.has_failed = True

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Add what Lightning leaves out; all ranks come here, rank 0's dictionary is written."""
        if trainer.state.fn != "fit":
            return
        loops, remembered = copy.deepcopy(checkpoint["loops"]["fit_loop"]), self._remembered
        when = moment(loops, validating=bool(trainer.validating), validated=remembered.is_validated)
        cut = was_cut(trainer)
        settle(loops, when, cut=cut)
        progress = loops["epoch_loop.batch_progress"]
        place = (loops["epoch_progress"]["current"]["completed"], progress["current"]["completed"])
        place, own = remembered.for_checkpoint(trainer, when, place)
        checkpoint[SWITCHES] = switches(trainer.strategy.root_device)
        loader = trainer.train_dataloader
        if hasattr(loader, "state_at"):
            own["data"] = loader.state_at(*place, over=progress["is_last_batch"])  # type: ignore[union-attr]
        checkpoint[KEY] = {
            "schema": SCHEMA,
            "moment": str(when),
            "cut": cut,
            "world_size": trainer.world_size,
            "order": getattr(getattr(loader, "batches", None), "order", None),
            "ranks": [own] if remembered.has_failed else gathered(trainer, own),
        }

    def _before_epoch(self, trainer: Trainer) -> None:
        """Between the hooks that begin a fit and those that begin an epoch, or its first batch."""
        fit_loop, epoch_loop = trainer.fit_loop, trainer.fit_loop.epoch_loop
        progress = fit_loop.epoch_progress.current
        if self._begins:
            self._begins = False
            batches = position(trainer, ended=False)[1]
            if self.loaded is not None:
                unfinished_epoch.restore(trainer, self.loaded)
                if self._left is Moment.EPOCH_END:
                    finish_epoch(trainer)
            # As at the end of a batch: with None, the next log would reset what was put back.
            first = None if batches == 0 else batches == 1
            trainer._logger_connector._first_loop_iter = first
            for callback in trainer.callbacks:  # type: ignore[attr-defined]
                # It sets this as an epoch begins, and the one under way has begun.
                if isinstance(callback, GradientAccumulationScheduler):
                    every = callback.get_accumulate_grad_batches(trainer.current_epoch)
                    trainer.accumulate_grad_batches = every
        fit_loop._restarting = False  # or plateau schedulers would not see the end of this epoch
        if progress.started == progress.processed:  # type: ignore[attr-defined]
            epoch_loop.restarting = False
            self._seed(trainer, "epoch")

    def _seed(self, trainer: Trainer, role: str) -> None:
        if self.seed is not None:
            epochs, batches = (0, 0) if role == "start" else position(trainer, ended=False)
            seed_generators(derive_seed(self.seed, role, epochs, batches, trainer.global_rank))
