"""Runs side by side: what they were told, how long they took, and what came of it."""

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..rundir import TrainingRun
from ..schema import UnreadableFile

if TYPE_CHECKING:
    import pandas as pd


def compare(
    runs: Mapping[str, TrainingRun],
    settings: Mapping[str, Mapping[str, object]] | None = None,
) -> "pd.DataFrame":
    """Return one row per run: its settings, state, step, seconds, metrics and evaluations.

    Of each metric it is the last value that was logged; `test/…` is what an evaluation stage
    measured on the final model. What a run does not have is empty.

    Args:
        runs: The runs by name.
        settings: What tells them apart, by name of the run.
    """
    import pandas as pd

    rows = {}
    for name, run in runs.items():
        row: dict[str, Any] = dict((settings or {}).get(name, {}))
        row["state"] = run.state.word
        try:
            row |= _outcome(run)
        except (UnreadableFile, OSError) as error:
            row["trouble"] = str(error)
        rows[name] = row
    return pd.DataFrame.from_dict(rows, orient="index")


def _outcome(run: TrainingRun) -> dict[str, Any]:
    last: dict[str, Any] = {}
    step = 0
    for event in run.events():
        step = max(step, int(event.get("step") or 0))
        if event["event"] == "metric":
            last |= event["metrics"]
    seconds = sum((each.ended or each.started) - each.started for each in run.attempts())
    return {"step": step, "seconds": round(seconds, 1), **last, **_evaluations(run)}


def _evaluations(run: TrainingRun) -> dict[str, Any]:
    """Return what `evaluate_run` left in the run's `report/` folder: `test.json`, `val.json`."""
    found: dict[str, Any] = {}
    for path in sorted(run.path.glob("report/*.json")):
        try:
            measured = json.loads(path.read_text(encoding="utf-8"))
        except ValueError:  # torn
            continue
        if isinstance(measured, dict):
            place = path.stem
            found |= {n if n.startswith(place) else f"{place}: {n}": v for n, v in measured.items()}
    return found
