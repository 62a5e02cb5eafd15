"""Curves of metrics as PNG files: one figure per family of a run, or per metric of several runs.

The lowest and the highest value of each line are marked. Where most values would be squeezed into
the lowest tenth, the axis is logarithmic. Crosses at the bottom are NaN or infinite.
"""

import io
import itertools
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..external.viewing.metric_figure import family_of

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLORS = (
    *("#2563eb", "#ea580c", "#059669", "#9333ea", "#dc2626"),
    *("#0891b2", "#ca8a04", "#db2777", "#4b5563", "#65a30d"),
)
STYLE: dict[Any, Any] = {
    "axes.edgecolor": "#9ca3af",
    "axes.labelcolor": "#4b5563",
    "axes.spines.right": False,
    "axes.spines.top": False,
    "font.family": ["DejaVu Sans"],
    "font.size": 9.0,
    "grid.color": "#e5e7eb",
    "legend.frameon": False,
    "xtick.color": "#6b7280",
    "ytick.color": "#6b7280",
}
NOISY = 200  # points from which on the line drawn is a mean, the points faint behind it
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
    families: dict[str, list[str]] = defaultdict(list)
    for name in metric_names(metrics):
        families[family_of(name)].append(name)
    begins = metrics.loc[metrics["attempt"].diff() > 0, "step"] if len(metrics) else []
    images = {}
    for family, names in sorted(families.items()):
        figure, axes = _figure(family)
        lines = {name: _points(metrics, name) for name in names}
        _draw(axes, lines, COLORS, is_marked=len(lines) <= 4)
        _cross(axes, {name: (not_finite or {}).get(name, ()) for name in names}, COLORS)
        for step in begins:
            axes.axvline(step, color="#9ca3af", linestyle="--", linewidth=0.8)
        _mark_epochs(axes, metrics)
        images[family] = _png(figure)
    return images


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
    names = dict.fromkeys(name for table in runs.values() for name in metric_names(table))
    images = {}
    for name in sorted(names):
        chosen = {run: table for run, table in runs.items() if name in metric_names(table)}
        own = [color for run, color in zip(runs, colors, strict=True) if run in chosen]
        figure, axes = _figure(name)
        _draw(axes, {run: _points(table, name) for run, table in chosen.items()}, own)
        lost = {run: (not_finite or {}).get(run, {}).get(name, ()) for run in chosen}
        _cross(axes, lost, own)
        images[name] = _png(figure)
    return images


def metric_names(metrics: "pd.DataFrame") -> list[str]:
    """Return the columns with something that can be drawn: words and lists cannot."""
    columns = [str(name) for name in metrics.columns[_KNOWN:]]
    return [name for name in columns if metrics[name].map(_is_finite).any()]


def run_colors(number: int) -> list[str]:
    """Return so many colors: distinct ones up to ten, else a scale from dark to light."""
    if number <= len(COLORS):
        return list(COLORS[:number])
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    return [to_hex(colormaps["viridis"](0.95 * at / (number - 1))) for at in range(number)]


def needs_log_axis(values: Sequence[float]) -> bool:
    """Return whether a linear axis would squeeze most of the values into its lowest tenth."""
    if len(values) < 4 or min(values) <= 0 or max(values) < 20 * min(values):
        return False
    median = sorted(values)[len(values) // 2]
    return (median - min(values)) < 0.1 * (max(values) - min(values))


def _figure(label: str) -> "tuple[Figure, Axes]":
    from matplotlib import rc_context
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    with rc_context(STYLE):
        figure = Figure(figsize=(5.8, 3.3), layout="constrained")
        axes = figure.add_subplot()
        axes.set_xlabel("step")
        axes.set_ylabel(_shown(label))
        axes.grid(visible=True, linewidth=0.7)
        axes.set_axisbelow(True)
        whole = MaxNLocator("auto", steps=[1, 2, 2.5, 5, 10], integer=True)  # no half steps
        axes.xaxis.set_major_locator(whole)
    return figure, axes


def _draw(
    axes: "Axes",
    lines: "Mapping[str, tuple[pd.Series, pd.Series]]",
    colors: Sequence[str],
    *,
    is_marked: bool = True,
) -> None:
    pooled: list[float] = []
    for (name, (steps, values)), color in zip(lines.items(), itertools.cycle(colors), strict=False):
        pooled += values.tolist()
        dots = "." if len(values) < 40 else ""
        line: dict[str, Any] = {"color": color, "linewidth": 1.6, "label": _shown(name)}
        if is_marked and len(values) > 1:
            line["label"] += f"   \N{BLACK DOWN-POINTING SMALL TRIANGLE} {values.min():.4g}"
            line["label"] += f"  \N{BLACK UP-POINTING SMALL TRIANGLE} {values.max():.4g}"
            for at, marker in ((values.idxmin(), "v"), (values.idxmax(), "^")):
                mark: dict[str, Any] = {
                    "color": color,
                    "markersize": 7,
                    "mec": "white",
                    "zorder": 5,
                }
                axes.plot(steps[at], values[at], marker, **mark)
        if len(values) > NOISY:
            axes.plot(steps, values, color=color, linewidth=0.6, alpha=0.25)
            window = max(len(values) // 50, 2)
            axes.plot(steps, values.rolling(window, min_periods=1, center=True).mean(), **line)
        else:
            axes.plot(steps, values, marker=dots, markersize=4, **line)
    if needs_log_axis(pooled):
        axes.set_yscale("log")
    if len(lines) <= 12:
        columns = 1 if max(map(len, lines)) > 24 else 2
        axes.figure.legend(loc="outside upper left", ncols=columns, frameon=False, fontsize=8.5)


def _mark_epochs(axes: "Axes", metrics: "pd.DataFrame") -> None:
    """Put whole epochs above the steps: an epoch ends with the last step of its number."""
    known = metrics.dropna(subset=["epoch"])
    ends = known.groupby("epoch")["step"].max()
    if len(ends) < 2:
        return
    chosen = ends.iloc[:: max(math.ceil(len(ends) / 8), 1)].iloc[:-1]
    above = axes.secondary_xaxis("top")
    above.set_xticks(chosen.tolist(), [f"{int(epoch) + 1}" for epoch in chosen.index])
    above.tick_params(length=3, labelsize=7.5, colors="#9ca3af")
    above.spines["top"].set_visible(False)
    above.set_xlabel("epochs", fontsize=7.5, color="#9ca3af", loc="right", labelpad=2)


def _points(metrics: "pd.DataFrame", name: str) -> "tuple[pd.Series, pd.Series]":
    kept = metrics[metrics[name].map(_is_finite)]
    return kept["step"], kept[name].astype(float)


def _cross(axes: "Axes", lost: Mapping[str, Sequence[int]], colors: Sequence[str]) -> None:
    """Mark at the bottom where a line has no finite value."""
    for steps, color in zip(lost.values(), itertools.cycle(colors), strict=False):
        heights, bottom = [0.03] * len(steps), axes.get_xaxis_transform()
        axes.plot(steps, heights, "x", color=color, markersize=5, transform=bottom)


def _shown(name: str) -> str:
    """Return a name as a label: matplotlib would set `$` as mathematics, and hide `_private`."""
    short = name if len(name) <= 60 else f"{name[:59]}\N{HORIZONTAL ELLIPSIS}"
    return (" " if short.startswith("_") else "") + short.replace("$", r"\$")


def _png(figure: "Figure") -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=170)
    return buffer.getvalue()


def _is_finite(value: object) -> bool:
    """Return whether a script's value can be drawn: words and lists cannot."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
