"""A bar that shows where a lean fit is: its epoch, the batches, and what was logged for it.

epoch 2:  45%|████▌     | 90/200 [00:01<00:01, 84.2batch/s, train_loss=0.31]
"""

from typing import TYPE_CHECKING

from tqdm.auto import tqdm

if TYPE_CHECKING:
    from .stand_in import StandIn


class Bar:
    """Draws on stderr, ten times a second at most; values are read only when it is drawn.

    Args:
        trainer: Whose epoch, batches and `progress_bar_metrics` are shown.
    """

    def __init__(self, trainer: "StandIn") -> None:
        self._trainer = trainer
        self._shown: tqdm | None = None

    def begin_epoch(self, done: int) -> None:
        """Begin a line, of an epoch of which `done` batches are done."""
        self.close()
        batches = self._trainer.num_training_batches
        total = int(batches) if batches != float("inf") else None
        epoch = f"epoch {self._trainer.current_epoch}"
        self._shown = tqdm(desc=epoch, total=total, initial=done, unit="batch", dynamic_ncols=True)

    def advance(self) -> None:
        """Count a batch."""
        if self._shown is not None and self._shown.update():
            self._shown.set_postfix(self._trainer.progress_bar_metrics, refresh=False)

    def close(self) -> None:
        """End the line that is begun, with the newest values."""
        if self._shown is not None:
            self._shown.set_postfix(self._trainer.progress_bar_metrics)
            self._shown.close()
            self._shown = None
