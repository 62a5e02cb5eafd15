"""Where Lightning's loops stand: so many whole epochs, so many batches, and what is left to do.

Lightning counts an epoch or a batch as ready, started, processed and completed, and restarts
differently from each mixture; at rest, between two batches or two epochs, all four are equal but
that an epoch under way is started (loops/progress.py and FitLoop.update_restart_stage of
Lightning 2.6). A checkpoint that was saved elsewhere is read as the rest that it was at last and
what was left to do from there.
"""

from enum import StrEnum
from typing import Any

from lightning.pytorch import Trainer


class Moment(StrEnum):
    """When a checkpoint was saved, which says what a resume has still to do."""

    REST = "rest"
    """Between two batches or two epochs: nothing."""
    STEP = "step"
    """Within a batch: nobody knows."""
    BATCH_END = "batch end"
    """In `on_train_batch_end`: its logging, the validation that is due, plateau schedulers."""
    VALIDATION = "validation"
    """Before the end of a validation: the validation, from its beginning, and what follows."""
    VALIDATION_END = "validation end"
    """In `on_validation_end`: what follows a validation."""
    EPOCH_END = "epoch end"
    """In `on_train_epoch_end`: plateau schedulers and the logging of the epoch's values."""


def position(trainer: Trainer, *, ended: bool) -> tuple[int, int]:
    """Return (whole epochs done, batches done of the epoch under way).

    Args:
        trainer: At a boundary between two optimizer steps, or in a validation.
        ended: Training is over, perhaps by a limit of steps in the middle of an epoch.
    """
    epoch = trainer.fit_loop.epoch_progress.current
    batch = trainer.fit_loop.epoch_loop.batch_progress
    if epoch.started > epoch.processed:  # type: ignore[attr-defined]
        return epoch.processed, batch.current.completed  # type: ignore[attr-defined]
    if ended and batch.current.completed and not batch.is_last_batch and was_cut(trainer):
        # Lightning has counted the epoch that the limit ended.
        return epoch.processed - 1, batch.current.completed  # type: ignore[attr-defined]
    return epoch.processed, 0  # type: ignore[attr-defined]


def moment(state: dict[str, Any], *, validating: bool, validated: bool) -> Moment:
    """Return when the fit loop's `state` was taken.

    Args:
        state: Of the fit loop, as Lightning saves it.
        validating: Within a validation of the fit.
        validated: Its epoch has ended, only `on_validation_end` is under way.
    """
    if validating:
        return Moment.VALIDATION_END if validated else Moment.VALIDATION
    epoch = state["epoch_progress"]["current"]
    batch = state["epoch_loop.batch_progress"]["current"]
    if epoch["processed"] > epoch["completed"]:
        return Moment.EPOCH_END
    if epoch["started"] > epoch["processed"]:
        if batch["processed"] > batch["completed"]:
            return Moment.BATCH_END
        if batch["started"] > batch["processed"]:
            return Moment.STEP
    return Moment.REST


def moment_of_plain_file(state: dict[str, Any]) -> Moment:
    """Return when a checkpoint was saved that does not say so: one of plain Lightning."""
    counted = moment(state, validating=False, validated=False)
    epoch = state["epoch_progress"]["current"]
    batch = state["epoch_loop.batch_progress"]["current"]
    is_under_way = epoch["started"] > epoch["processed"] and batch["completed"] > 0
    if counted is Moment.REST and is_under_way and batch["ready"] == batch["completed"]:
        return Moment.VALIDATION_END  # nobody else saves between a batch and the next
    return counted


def was_cut(trainer: Trainer) -> bool:
    """Return whether a limit of steps, or early stopping, ends an epoch before its last batch."""
    limit = trainer.fit_loop.max_steps
    return bool(trainer.should_stop) or (limit != -1 and trainer.global_step >= limit)


def settle(state: dict[str, Any], saved_in: Moment, *, cut: bool) -> Moment:
    """Write the fit loop's `state` as the rest before what is left to do; returns what that is.

    Args:
        state: Of the fit loop; changed.
        saved_in: When it was taken.
        cut: Whether something but the end of the data ends the epoch, if it ends.
    """
    epoch = state["epoch_progress"]["current"]
    progress = state["epoch_loop.batch_progress"]
    batch = progress["current"]
    if saved_in is Moment.STEP and moment(state, validating=False, validated=False) is Moment.REST:
        saved_in = Moment.REST  # the state before was put back
    if epoch["started"] > epoch["processed"]:
        is_done = saved_in is Moment.BATCH_END
        rest(state, epoch["processed"], batch["processed" if is_done else "completed"])
        return saved_in
    if cut and batch["completed"] and not progress["is_last_batch"]:
        rest(state, epoch["processed"] - 1, batch["completed"])
        return Moment.REST
    rest(state, epoch["processed"], 0)
    return saved_in


def rest(state: dict[str, Any], epochs: int, batches: int) -> None:
    """Write Lightning's loop state as it is at rest, in place.

    `state` is the state of the fit loop at `epochs` whole epochs and `batches` of the next one,
    all batches of it if only the end of the epoch is left.
    """
    begun = epochs + 1 if batches else epochs
    for counter in (state["epoch_progress"]["total"], state["epoch_progress"]["current"]):
        counter.update(ready=begun, started=begun, processed=epochs, completed=epochs)
    progress = state["epoch_loop.batch_progress"]
    current, total = progress["current"], progress["total"]
    is_over = bool(batches) and progress["is_last_batch"] and current["ready"] == batches
    done = total["completed"] + max(0, batches - current["completed"])
    total.update(ready=done, started=done, processed=done, completed=done)
    current.update(ready=batches, started=batches, processed=batches, completed=batches)
    progress["is_last_batch"] = is_over
