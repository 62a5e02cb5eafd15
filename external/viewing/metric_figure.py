"""The curves of one run or several as one picture: a panel per family of metrics.

`train_loss` and `val/loss` share the family `loss`. One run's metrics differ by colour; with
several runs the colour is the run and the dashes are the metric.
"""

import io
import math
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence

Values = Mapping[str, Mapping[float, float]]
"""What one run logged: for each metric its values by step (or whatever the x axis is)."""

_PLACE = re.compile(r"^(train|training|val|valid|validation|test)[_/]|[_/](step|epoch)$")
_DASHES = ("-", "--", ":", "-.")
_FEW_POINTS = 50
_HUGE = 1e150  # beyond it matplotlib overflows; a diverged loss is not drawn
_LONGEST = 50
_COLUMNS = 2


def metric_figure(
    runs: Mapping[str, Values],
    *,
    x_label: str = "step",
    log: bool = False,
    smoothing: float = 0.0,
    marks: Sequence[float] = (),
) -> bytes:
    """Return a PNG; empty if there is nothing to draw.

    Args:
        runs: What each run logged, by its name.
        x_label: What the values are by.
        log: Logarithmic y axes, for families whose values are all above 0.
        smoothing: Weight of the past in a running mean, from 0 (none) up to, not including, 1;
            the raw curve stays behind it, pale.
        marks: Where dashed vertical lines go: later attempts.
    """
    from matplotlib.figure import Figure

    names = dict.fromkeys(name for values in runs.values() for name in values)
    families: dict[str, list[str]] = defaultdict(list)
    for name in names:
        families[family_of(name)].append(name)
    if not families:
        return b""
    columns = min(_COLUMNS, len(families))
    rows = math.ceil(len(families) / columns)
    figure = Figure(figsize=(5.2 * columns, 3.0 * rows), layout="constrained")
    for place, (family, members) in enumerate(sorted(families.items()), start=1):
        axes = figure.add_subplot(rows, columns, place, xlabel=x_label, ylabel=_plain(family))
        drawn: list[float] = []
        for number, (run, values) in enumerate(runs.items()):
            for kind, name in enumerate(n for n in members if n in values):
                color = f"C{(number if len(runs) > 1 else kind) % 10}"
                style = _DASHES[kind % len(_DASHES)] if len(runs) > 1 else "-"
                label = f"{run} {name}".strip() if len(runs) > 1 else name
                points = sorted(values[name].items())
                xs = [x for x, _ in points]
                ys = [y if abs(y) < _HUGE else math.nan for _, y in points]
                drawn += [y for y in ys if math.isfinite(y)]
                marker = "." if len(points) < _FEW_POINTS else ""
                if smoothing:
                    axes.plot(xs, ys, color=color, alpha=0.25, linewidth=0.8)
                    ys = smoothed(ys, smoothing)
                    marker = ""
                axes.plot(xs, ys, style, color=color, marker=marker, label=_plain(label))
        for mark in marks:
            axes.axvline(mark, color="grey", linestyle="--", linewidth=0.8)
        if log and drawn and min(drawn) > 0:
            axes.set_yscale("log")
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100)
    return buffer.getvalue()


def family_of(metric: str) -> str:
    """Return what a metric measures, without where and how often: `val/loss_epoch` is `loss`."""
    stripped = metric
    while (shorter := _PLACE.sub("", stripped)) != stripped and shorter:
        stripped = shorter
    return stripped


def _plain(name: str) -> str:
    """Return a name as matplotlib shows it: not as a formula, and not left out of the legend."""
    short = name if len(name) <= _LONGEST else f"{name[: _LONGEST - 1]}…"
    escaped = short.replace("$", r"\$")
    return f" {escaped}" if escaped.startswith("_") else escaped


def smoothed(values: Sequence[float], weight: float) -> list[float]:
    """Return the running mean whose first values are not drawn to 0; NaN is passed over.

    Raises:
        ValueError: `weight` is not from 0 up to, not including, 1.
    """
    if not 0 <= weight < 1:
        raise ValueError(f"smoothing is {weight!r}, expected a number from 0 to below 1.")
    means, total, share = [], 0.0, 0.0
    for value in values:
        if math.isfinite(value):
            total = weight * total + (1 - weight) * value
            share = weight * share + (1 - weight)
        means.append(total / share if share else value)
    return means
