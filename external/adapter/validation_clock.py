"""When a validation is due by the clock: `val_check_interval` as a time.

All ranks decide alike, which Lightning's do not: each of those asks its own clock, and where one
is late the others wait for it forever. What the clock said is in no two runs the same; the time
since the last validation is in checkpoints, so that a resume does not begin to wait anew.
"""

import time
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from lightning.pytorch import Trainer

from ..agreement import maximum
from ..refused import Refused
from .talk import Talk

_EXAMPLE = 'Write "00:00:30:00" (days, hours, minutes, seconds), a timedelta or {"minutes": 30}.'


def seconds_of(value: Any) -> float | None:
    """Return a `val_check_interval` that is a time in seconds; None if it is none.

    Raises:
        Refused: A text or mapping that says no time.
    """
    if isinstance(value, timedelta):
        return value.total_seconds()
    if not isinstance(value, str | Mapping):
        return None
    try:
        if isinstance(value, Mapping):
            return timedelta(**value).total_seconds()
        days, hours, minutes, seconds = map(int, value.split(":"))
    except (TypeError, ValueError) as error:
        raise Refused(f"val_check_interval is {value!r}, which is no time. {_EXAMPLE}") from error
    return timedelta(days, hours=hours, minutes=minutes, seconds=seconds).total_seconds()


class ValidationClock:
    """Says when `seconds` have passed since the last validation.

    Several ranks talk about it a few times a second, at the same batches.
    """

    def __init__(self, seconds: float, trainer: Trainer) -> None:
        self.seconds = seconds
        self._trainer = trainer
        self._talk = Talk(trainer.world_size)
        self._at = time.monotonic()

    @property
    def elapsed(self) -> float:
        """Seconds since the last validation, or since the training began, in all its attempts."""
        return time.monotonic() - self._at

    def begin(self, elapsed: float = 0.0) -> None:
        """Begin to wait, of which `elapsed` seconds are over."""
        self._at = time.monotonic() - elapsed

    def is_due(self, batch: int) -> bool:
        """Return whether all ranks validate after `batch`, a number of all epochs; all ask."""
        is_late = self.elapsed >= self.seconds
        talk = self._talk
        if talk.world_size == 1 or not talk.is_due(batch):
            return is_late and talk.world_size == 1
        late, pause = maximum(self._trainer, int(is_late), talk.pause(batch))
        talk.agreed(batch, pause)
        return bool(late)
