"""Which checkpoints are kept: the newest k, the best k by a metric, every n-th for ever."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol


class Kept(Protocol):
    """What retention looks at: a step and, in `details["metrics"]`, the metrics at that step."""

    @property
    def step(self) -> int:
        """Optimizer steps done."""

    @property
    def details(self) -> dict[str, object]:
        """What the writer said about the checkpoint."""


@dataclass(frozen=True, kw_only=True)
class Retention:
    """A checkpoint is kept if any of these rules keeps it; the newest one always is.

    Attributes:
        newest: How many of the highest steps; 0 keeps all.
        best: How many of the best by `monitor`; 0 for none.
        monitor: The metric's name; checkpoints without it, or with NaN, are not among the best.
        mode: Whether a small or a large value is good.
        every: Each step that this divides stays for ever; None for none.
    """

    newest: int = 3
    best: int = 0
    monitor: str | None = None
    mode: Literal["min", "max"] = "min"
    every: int | None = None

    def __post_init__(self) -> None:
        """Refuse rules that cannot be meant."""
        if self.newest < 0 or self.best < 0 or (self.every is not None and self.every < 1):
            raise ValueError(
                f"newest={self.newest}, best={self.best}, every={self.every}: expected no negative "
                "number, and every at least 1. Use 0 or None to leave a rule out."
            )
        if self.best and not self.monitor:
            raise ValueError("best needs a metric to go by. Write monitor='val/loss', for example.")

    def keep(self, checkpoints: Sequence[Kept]) -> set[int]:
        """Return the steps of `checkpoints` that stay."""
        steps = sorted(checkpoint.step for checkpoint in checkpoints)
        if self.newest == 0:
            return set(steps)
        kept = set(steps[-self.newest :])
        if self.every is not None:
            kept |= {step for step in steps if step % self.every == 0}
        if self.best and self.monitor is not None:
            kept |= set(self._best(checkpoints))
        return kept

    def _best(self, checkpoints: Sequence[Kept]) -> list[int]:
        measured = []
        for checkpoint in checkpoints:
            metrics = checkpoint.details.get("metrics")
            value = metrics.get(self.monitor) if isinstance(metrics, dict) else None
            if isinstance(value, int | float) and not math.isnan(value):
                measured.append((value if self.mode == "min" else -value, -checkpoint.step))
        return [-step for _, step in sorted(measured)[: self.best]]
