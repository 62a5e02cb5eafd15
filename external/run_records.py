"""What a run's journal says besides steps and metrics: hyperparameters, the model, saved files."""

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from .journal import Event


def hyperparameters(events: Iterable[Event]) -> dict[str, Any]:
    """Return the hyperparameters; of one that was logged several times, the last value."""
    values: dict[str, Any] = {}
    for event in events:
        if event["event"] == "hyperparameters":
            values.update(event["values"])
    return values


def model_summary(events: Iterable[Event]) -> dict[str, Any] | None:
    """Return what the model was last (see `model_summary`), None if nobody wrote it."""
    found = [event for event in events if event["event"] == "model"]
    return {k: v for k, v in found[-1].items() if k not in ("event", "time")} if found else None


def saved_files(events: Iterable[Event], run: Path) -> list[dict[str, Any]]:
    """Return what Lightning saved besides the store, each file once, in the order of saving.

    Returns:
        Per file `step`, `epoch` under way, `bytes`, `seconds` that saving took, `file` as seen
        from the run directory, `exists` (now), `monitor` and `score` of the `ModelCheckpoint`
        that keeps it, `is_best`; what is not known is None.
    """
    files: dict[str, dict[str, Any]] = {}
    scores: dict[str, tuple[str | None, float]] = {}
    best: dict[tuple[str | None, str], str] = {}
    for event in events:
        if event["event"] == "checkpoint" and "file" in event:
            files.pop(event["file"], None)  # saved again: the newest is what lies there
            files[event["file"]] = event
        elif event["event"] == "kept":
            scores.update({file: (event["monitor"], s) for file, s in event["scores"].items()})
            best[event["monitor"], event["mode"]] = event["best"]
    return [
        {
            **{name: event.get(name) for name in ("step", "epoch", "bytes", "seconds", "file")},
            "exists": "://" in file or (run / file).exists(),
            "monitor": scores.get(file, (None, None))[0],
            "score": scores.get(file, (None, None))[1],
            "is_best": file in best.values(),
        }
        for file, event in files.items()
    ]


def lost_lines(events: Iterable[Event]) -> int:
    """Return how many lines found no room."""
    return sum(int(event["lost"]) for event in events if event["event"] == "gap")


def not_finite(events: Iterable[Event]) -> dict[str, list[int]]:
    """Return at which steps a metric was NaN or infinite."""
    steps: dict[str, list[int]] = {}
    for event in events:
        if event["event"] == "metric":
            for name, value in event["metrics"].items():
                if isinstance(value, float) and not math.isfinite(value):
                    steps.setdefault(name, []).append(event["step"])
    return steps
