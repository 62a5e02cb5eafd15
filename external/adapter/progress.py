"""Where a lean fit stands, and the same as Lightning's loops would say it.

Lightning's readers of a checkpoint, and code written for its Trainer, ask the "fit loop"; so the
counters are kept once, and `FitLoopView` and `loops_state` show them under Lightning's names.
"""

from typing import Any

from ..exact.loop_position import rest


class Progress:
    """The counters of one fit.

    Attributes:
        epochs_started: Epochs that have begun.
        epochs_processed: Epochs whose batches are done; `on_train_epoch_end` comes after.
        epochs_completed: Epochs of which nothing is left; `trainer.current_epoch`.
        ready: Batches of this epoch that were taken, with the one under way.
        completed: Batches of this epoch that are done.
        total: Batches of all epochs that were taken.
        is_last_batch: Whether the batch taken last is the last one of the epoch.
        steps: Optimizer steps; `trainer.global_step`.
        stepped_batches: Batches that ended an optimizer step: Lightning's step for its loggers.
        share: How many batches a checkpoint counts for each of this process's (see `world`).
    """

    __slots__ = (
        *("epochs_started", "epochs_processed", "epochs_completed", "ready", "completed", "total"),
        *("is_last_batch", "steps", "stepped_batches", "share"),
    )

    def __init__(self) -> None:
        self.epochs_started = self.epochs_processed = self.epochs_completed = 0
        self.ready = self.completed = self.total = 0
        self.is_last_batch = False
        self.steps = self.stepped_batches = 0
        self.share = 1

    def place(self) -> tuple[int, int]:
        """Return (whole epochs done, batches done of the epoch under way)."""
        if self.epochs_started > self.epochs_processed:
            return self.epochs_processed, self.completed
        return self.epochs_processed, 0

    def load(self, loops: dict[str, Any], *, steps: int) -> None:
        """Take over the state of a fit loop at rest, as `loop_position.settle` leaves it."""
        epoch = loops["epoch_progress"]["current"]
        batch = loops["epoch_loop.batch_progress"]
        self.epochs_started = epoch["started"]
        self.epochs_processed = self.epochs_completed = epoch["processed"]
        self.ready = self.completed = batch["current"]["completed"] // self.share
        self.total = batch["total"]["completed"] // self.share
        self.is_last_batch = batch["is_last_batch"]
        self.steps = steps
        counted = loops["epoch_loop.state_dict"].get("_batches_that_stepped", steps)
        self.stepped_batches = counted


class FitLoopView:
    """What of Lightning's `trainer.fit_loop` other code asks for."""

    def __init__(self, progress: Progress, *, max_steps: int, max_epochs: int) -> None:
        self._progress = progress
        self.max_steps = max_steps
        self.max_epochs = max_epochs
        self.epoch_progress = _EpochProgress(progress)
        self.epoch_loop = _EpochLoop(progress)

    @property
    def total_batch_idx(self) -> int:
        """The number of the batch under way, over all epochs."""
        return self._progress.total - 1

    @property
    def batch_idx(self) -> int:
        """The number of the batch under way in its epoch."""
        return self._progress.ready - 1


class _EpochLoop:
    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self.batch_progress = _BatchProgress(progress)
        self.logged_step: int | None = None
        """What loggers are told now; at an epoch's end Lightning counts its last step back."""

    @property
    def _batches_that_stepped(self) -> int:
        return self._progress.stepped_batches if self.logged_step is None else self.logged_step

    @property
    def total_batch_idx(self) -> int:
        return self._progress.total - 1

    @property
    def batch_idx(self) -> int:
        return self._progress.ready - 1

    @property
    def global_step(self) -> int:
        return self._progress.steps


class _EpochProgress:
    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self.current = self

    @property
    def started(self) -> int:
        return self._progress.epochs_started

    @property
    def processed(self) -> int:
        return self._progress.epochs_processed

    @property
    def completed(self) -> int:
        return self._progress.epochs_completed


class _BatchProgress:
    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self.current = self

    @property
    def ready(self) -> int:
        return self._progress.ready

    @property
    def completed(self) -> int:
        return self._progress.completed

    @property
    def is_last_batch(self) -> bool:
        return self._progress.is_last_batch


def loops_state(
    progress: Progress, place: tuple[int, int], *, is_automatic: bool, has_schedulers: bool
) -> dict[str, Any]:
    """Return the state of Lightning's four loops as it is at rest at `place`.

    Args:
        progress: The counters.
        place: (whole epochs, batches of the next one).
        is_automatic: Whether the optimizer steps were automatic.
        has_schedulers: Whether there are learning-rate schedulers, whose steps Lightning counts.
    """
    steps, batches = progress.steps, progress.ready * progress.share
    place = (place[0], place[1] * progress.share)
    step = {"ready": steps, "completed": steps}
    in_epoch = {"ready": batches, "completed": batches}
    automatic = step if is_automatic else {"ready": 0, "completed": 0}
    scheduled = step if has_schedulers else {"ready": 0, "completed": 0}
    fit = {
        "state_dict": {},
        "epoch_loop.state_dict": {"_batches_that_stepped": progress.stepped_batches},
        "epoch_loop.batch_progress": {
            "total": _four(progress.total * progress.share),
            "current": _four(batches),
            "is_last_batch": progress.is_last_batch,
        },
        "epoch_loop.scheduler_progress": {"total": dict(scheduled), "current": dict(in_epoch)},
        "epoch_loop.automatic_optimization.state_dict": {},
        "epoch_loop.automatic_optimization.optim_progress": {
            "optimizer": {
                "step": {"total": dict(automatic), "current": dict(in_epoch)},
                "zero_grad": {
                    "total": {**automatic, "started": automatic["ready"]},
                    "current": {**in_epoch, "started": batches},
                },
            }
        },
        "epoch_loop.manual_optimization.state_dict": {},
        "epoch_loop.manual_optimization.optim_step_progress": {
            "total": {"ready": 0, "completed": 0} if is_automatic else dict(step),
            "current": {"ready": 0, "completed": 0},
        },
        "epoch_loop.val_loop.state_dict": {},
        "epoch_loop.val_loop.batch_progress": _evaluation()["batch_progress"],
        "epoch_progress": {
            "total": _four(progress.epochs_processed),
            "current": _four(progress.epochs_processed),
        },
    }
    rest(fit, *place)
    predict = _evaluation()
    del predict["batch_progress"]["is_last_batch"]
    return {
        "fit_loop": fit,
        "validate_loop": _evaluation(),
        "test_loop": _evaluation(),
        "predict_loop": predict,
    }


def _evaluation() -> dict[str, Any]:
    progress = {"total": _four(0), "current": _four(0), "is_last_batch": False}
    return {"state_dict": {}, "batch_progress": progress}


def _four(count: int) -> dict[str, int]:
    return {"ready": count, "completed": count, "started": count, "processed": count}
