"""What was known at moments that a checkpoint may have to go back to.

After an error the last boundary between two optimizer steps is saved, and in a validation the
moment before it: what it has counted so far will be counted again.
"""

from typing import Any

from lightning.pytorch import Trainer

from . import logged_values
from .loop_position import Moment, position
from .metric_states import MetricStates
from .unfinished_epoch import capture, gradients, to_plain

Place = tuple[int, int]
"""(whole epochs done, batches done of the next)"""


class Remembered:
    """The state of this process at such moments, in one fit."""

    def __init__(self) -> None:
        self.is_validated = False
        """The validation under way has ended but for `on_validation_end`."""
        self.has_failed = False
        self._step = -1
        self._boundary: tuple[Place, dict[str, Any]] | None = None
        self._before_validation: dict[str, Any] = {}
        self._metrics: MetricStates | None = None

    def boundary(self, trainer: Trainer) -> None:
        """Take note of a boundary, if the last batch ended an optimizer step."""
        if trainer.global_step != self._step:
            self._step = trainer.global_step
            self._boundary = (position(trainer, ended=False), self._capture(trainer))

    def validation_begins(self, trainer: Trainer) -> None:
        """Take note of what was before."""
        self.is_validated = False
        self._before_validation = self._capture(trainer)

    def for_checkpoint(
        self, trainer: Trainer, when: Moment, place: Place
    ) -> tuple[Place, dict[str, Any]]:
        """Return what a checkpoint is to hold, plainly, and where it is to go on.

        Args:
            trainer: It is saving.
            when: In which moment.
            place: Where the loops stand then.
        """
        if self.has_failed and self._boundary is not None:
            place, captured = self._boundary
            return place, to_plain(captured)
        captured = self._before_validation if when is Moment.VALIDATION else self._capture(trainer)
        reset: list[str] = []
        if when is Moment.VALIDATION_END:
            validated = trainer.fit_loop.epoch_loop.val_loop._results
            reset = sorted(logged_values.logged_metrics(validated))
        own = to_plain(captured, reset=reset)
        if place[1]:
            own["gradients"] = gradients(trainer, place[1])
        return place, own

    def _capture(self, trainer: Trainer) -> dict[str, Any]:
        if self._metrics is None:
            self._metrics = MetricStates(trainer.lightning_module)
        return capture(trainer, self._metrics)
