"""Reports a session to a journal, and nothing else: the part that every run of ours shares."""

import time
from json.encoder import encode_basestring_ascii
from pathlib import Path
from typing import Any

from ..journal import Journal, to_line

STEP_SIZE = 100  # bytes of a step's line, roughly
VALUE_SIZE = 40  # bytes of a value and its name, roughly
BITS = 64  # of an int that is sure to have a text: Python refuses that of a very large one


class JournalReporter:
    """Writes steps, metrics and the plan to `journal`, which the caller closes."""

    managed = True

    def __init__(self, journal: Journal) -> None:
        self.journal = journal

    def plan(self, steps: int | None, epochs: int | None, batches_per_epoch: int | None) -> None:
        """Write how long the training is to be, as far as is known."""
        self.journal.write("plan", steps=steps, epochs=epochs, batches_per_epoch=batches_per_epoch)

    def begin_at(self, step: int) -> None:
        """Whoever opened the journal wrote it."""

    def step(self, step: int, seconds: float, epoch: int | None) -> None:
        """Write the step."""
        self.journal.append_later(step_line, time.time(), step, seconds, epoch, size=STEP_SIZE)

    def metric(self, values: dict[str, Any], step: int, epoch: int | None) -> None:
        """Write the values; the line is made later if they are numbers."""
        now = time.time()
        if are_numbers(values) and type(step) is int:
            size = STEP_SIZE + VALUE_SIZE * len(values)
            self.journal.append_later(metric_line, now, values, step, epoch, size=size)
        else:  # of any length; and what JSON has no form for is an error of this call
            self.journal.append(metric_line(now, values, step, epoch))

    def upload(self, step: int, path: Path | None, *, emergency: bool) -> bool:
        """Nobody takes it: whoever trains saves."""
        return False

    def is_due(self, step: int) -> bool:
        """Whoever trains asks its ranks by itself."""
        return False

    def check_goes_on(self, step: int) -> None:
        """It does."""

    def close(self, step: int, error: BaseException | None = None) -> None:
        """The journal stays open."""


def are_numbers(values: dict[str, Any]) -> bool:
    """Return whether all are floats, or ints of a usual size."""
    for value in values.values():
        if type(value) is not float and (type(value) is not int or value.bit_length() > BITS):
            return False
    return True


def step_line(now: float, step: int, seconds: float, epoch: int | None) -> bytes:
    """Return the journal's line of a step; what `to_line` gives, at a third of its cost."""
    known = "null" if epoch is None else epoch
    return (
        f'{{"event": "step", "time": {now:.6f}, "step": {step}, "epoch": {known}, '
        f'"seconds": {seconds:.6f}}}\n'
    ).encode()


def metric_line(now: float, values: dict[str, Any], step: int, epoch: int | None) -> bytes:
    """Return the journal's line of some values; of numbers at half of what `to_line` costs."""
    numbers = []
    for name, value in values.items():
        if type(value) not in (float, int) or value - value != 0:  # text, say; NaN, or infinite
            record = {"event": "metric", "time": round(now, 6), "step": step, "epoch": epoch}
            return to_line({**record, "metrics": values})
        numbers.append(f"{encode_basestring_ascii(name)}: {value!r}")
    known = "null" if epoch is None else epoch
    return (
        f'{{"event": "metric", "time": {now:.6f}, "step": {step}, "epoch": {known}, '
        f'"metrics": {{{", ".join(numbers)}}}}}\n'
    ).encode()
