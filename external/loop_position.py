"""Where Lightning's loops stand between two steps: so many whole epochs and so many batches."""

from typing import Any

from lightning.pytorch import Trainer


def position(trainer: Trainer, *, ended: bool) -> tuple[int, int]:
    """Return (whole epochs done, batches done of the epoch under way).

    Args:
        trainer: At a boundary between two optimizer steps.
        ended: Training is over, perhaps by a limit of steps in the middle of an epoch.
    """
    epochs = trainer.fit_loop.epoch_progress.current.processed  # type: ignore[attr-defined]
    batches = trainer.fit_loop.epoch_loop.batch_progress.current.completed
    if batches >= trainer.num_training_batches:  # the epoch is over
        return epochs, 0
    if ended and batches:  # Lightning has counted the epoch that the limit ended
        return epochs - 1, batches
    return epochs, batches


def rest(state: dict[str, Any], epochs: int, batches: int) -> None:
    """Write Lightning's loop state as it is between two steps, in place.

    `state` is the state of the fit loop at `epochs` whole epochs and `batches` of the next one.
    Lightning counts an epoch or a batch as ready, started, processed and completed, and restarts
    differently from each mixture; at rest all four are equal, but an epoch under way is started
    (loops/progress.py and FitLoop.update_restart_stage of Lightning 2.6).
    """
    begun = epochs + 1 if batches else epochs
    for counter in (state["epoch_progress"]["total"], state["epoch_progress"]["current"]):
        counter.update(ready=begun, started=begun, processed=epochs, completed=epochs)
    progress = state["epoch_loop.batch_progress"]
    done = progress["total"]["completed"]
    progress["total"].update(ready=done, started=done, processed=done)
    progress["current"].update(ready=batches, started=batches, processed=batches, completed=batches)
    progress["is_last_batch"] = False
