"""Where a training run stands, as read off its journal: a value that each event updates."""

from collections import deque
from dataclasses import dataclass, field
from typing import Any

from .journal import Event

_RATE_WINDOW = 50
_STEP_WINDOW = 1000


@dataclass
class Progress:
    """The state of a run; times are seconds since 1970, `rate` is steps per second.

    `planned` steps, None if the run has no known length; `metrics` are the newest values;
    `step_time` is when the last step ended, or else this attempt's training began; `lost` counts
    what is missing in the journal.
    """

    step: int = 0
    epoch: int = 0
    epochs: int | None = None
    planned: int | None = None
    metrics: dict[str, Any] = field(default_factory=dict)
    checkpoint_time: float | None = None
    attempt: int = 0
    stop_reason: str | None = None
    is_complete: bool = False
    step_time: float | None = None
    lost: int = 0
    _times: list[tuple[float, int]] = field(default_factory=list)
    _seconds: deque[float] = field(default_factory=lambda: deque(maxlen=_STEP_WINDOW))

    def update(self, event: Event) -> None:
        """Take in one event of the journal."""
        kind = event["event"]
        if kind == "attempt":
            self.attempt = int(event["attempt"])
            self.step = int(event["resume_step"])
            self.stop_reason = None
            self.step_time = float(event["time"])
            self._times.clear()
            self._seconds.clear()
        elif kind == "plan":
            self.planned, self.epochs = event["steps"], event["epochs"]
        elif kind == "step":
            self.step, self.epoch = int(event["step"]), int(event["epoch"] or 0)
            self.step_time = float(event["time"])
            if "seconds" in event:
                self._seconds.append(float(event["seconds"]))
            self._times = [*self._times[-_RATE_WINDOW:], (float(event["time"]), self.step)]
        elif kind == "metric":
            self.metrics.update(event["metrics"])
        elif kind == "checkpoint":
            self.checkpoint_time = float(event["time"])
        elif kind == "gap":
            self.lost += int(event["lost"])
        elif kind == "stop":
            self.stop_reason = str(event["reason"])
        elif kind == "complete":
            self.is_complete = True

    @property
    def rate(self) -> float | None:
        """Steps per second over the last steps, None before the second one."""
        if len(self._times) < 2:
            return None
        (first, start), (last, end) = self._times[0], self._times[-1]
        return (end - start) / (last - first) if last > first else None

    def step_seconds(self, share: float) -> float | None:
        """Return what a step took at most in that share of the last thousand: 0.5 is the median."""
        if not self._seconds:
            return None
        ordered = sorted(self._seconds)
        return ordered[min(int(share * len(ordered)), len(ordered) - 1)]

    def describe(self, now: float) -> str:
        """Return one line: epoch, step, newest metrics, rate, step time, checkpoint, time left."""
        if self.step == 0 and not self._times:
            return "starting the trainer processes"
        parts = [f"step {self.step}" + (f"/{self.planned}" if self.planned else "")]
        if self.epochs is not None and self.epochs > 0:
            parts.insert(0, f"epoch {min(self.epoch + 1, self.epochs)}/{self.epochs}")
        parts += [f"{name} {_short(value)}" for name, value in sorted(self.metrics.items())[:6]]
        rate = self.rate
        if rate:
            parts.append(f"{rate:.3g} steps/s")
        median, slow = self.step_seconds(0.5), self.step_seconds(0.99)
        if median is not None and slow is not None:
            parts.append(f"{_time(median)}/step, p99 {_time(slow)}")
        if self.checkpoint_time is not None:
            parts.append(f"checkpoint {_duration(now - self.checkpoint_time)} ago")
        if rate and self.planned and self.planned > self.step:
            parts.append(f"{_duration((self.planned - self.step) / rate)} left")
        if self.lost:
            parts.append(f"{self.lost} journal lines lost")
        return " · ".join(parts)


def _short(value: object) -> str:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return f"{value:.4g}"
    text = str(value)
    return text if len(text) <= 20 else text[:19] + "…"


def _time(seconds: float) -> str:
    return f"{1000 * seconds:.3g} ms" if seconds < 1 else f"{seconds:.3g} s"


def _duration(seconds: float) -> str:
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60}:{whole % 60:02d} min"
    return f"{whole // 3600}:{whole % 3600 // 60:02d} h"
