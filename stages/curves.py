"""Curves of a report as PNG files: one per family of a run's metrics, or per metric of several."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from ..external.viewing.metric_figure import families
from ..external.viewing.panel import COLORS, Line, panel

if TYPE_CHECKING:
    import pandas as pd

_KNOWN = 4  # columns of a table of metrics that are none


def curves(
    metrics: "pd.DataFrame", not_finite: Mapping[str, Sequence[int]] | None = None
) -> dict[str, bytes]:
    """Return one PNG per family of metrics: `train_loss` and `val/loss` share the family `loss`.

    Above it are whole epochs. Where a later attempt begins, a dashed line marks the step.

    Args:
        metrics: What was logged, see `TrainingRun.metrics`.
        not_finite: The steps at which a metric was NaN or infinite; the table has no NaN.
    """
    begins = metrics.loc[metrics["attempt"].diff() > 0, "step"].tolist() if len(metrics) else []
    ends = metrics.dropna(subset=["epoch"]).groupby("epoch")["step"].max()
    epochs = {int(epoch): float(step) for epoch, step in ends.items()}
    return {
        family: panel(
            [
                Line(name, _points(metrics, name, not_finite or {}), COLORS[at % len(COLORS)])
                for at, name in enumerate(names)
            ],
            label=family,
            marks=begins,
            epochs=epochs,
        )
        for family, names in families(metric_names(metrics)).items()
    }


def overlaid(
    runs: Mapping[str, "pd.DataFrame"],
    colors: Sequence[str],
    not_finite: Mapping[str, Mapping[str, Sequence[int]]] | None = None,
) -> dict[str, bytes]:
    """Return one PNG per metric, with a line for each of the runs that have it.

    Args:
        runs: What each logged, by its name.
        colors: Each run's color, the same in all figures.
        not_finite: By run and metric, the steps at which it was NaN or infinite.
    """
    drawable = {run: metric_names(table) for run, table in runs.items()}
    lost = not_finite or {}
    return {
        name: panel(
            [
                Line(run, _points(table, name, lost.get(run, {})), color)
                for (run, table), color in zip(runs.items(), colors, strict=True)
                if name in drawable[run]
            ],
            label=name,
        )
        for name in sorted({name for names in drawable.values() for name in names})
    }


def metric_names(metrics: "pd.DataFrame") -> list[str]:
    """Return the columns with something that can be drawn: words and lists cannot."""
    columns = [str(name) for name in metrics.columns[_KNOWN:]]
    return [name for name in columns if metrics[name].map(_is_finite).any()]


def _points(
    metrics: "pd.DataFrame", name: str, not_finite: Mapping[str, Sequence[int]]
) -> dict[float, float]:
    kept = metrics[metrics[name].map(_is_finite)]
    points = dict.fromkeys(map(float, not_finite.get(name, ())), math.nan)
    return points | dict(zip(kept["step"].astype(float), kept[name].astype(float), strict=True))


def _is_finite(value: object) -> bool:
    """Return whether a script's value can be drawn: words and lists cannot."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
