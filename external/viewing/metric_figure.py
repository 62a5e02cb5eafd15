"""The curves of one run or several as one picture: a panel per family of metrics.

`train_loss` and `val/loss` share the family `loss`. One run's metrics differ by colour; with
several runs the colour is the run and the dashes are the metric.
"""

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from .panel import COLORS, DASHES, SIZE, Line, draw_panel, png, run_colors

Values = Mapping[str, Mapping[float, float]]
"""What one run logged: for each metric its values by step (or whatever the x axis is)."""

_PLACE = re.compile(r"^(train|training|val|valid|validation|test)[_/]|[_/](step|epoch)$")
_COLUMNS = 2


def metric_figure(
    runs: Mapping[str, Values],
    *,
    x_label: str = "step",
    log: bool | None = None,
    smoothing: float | None = None,
    marks: Sequence[float] = (),
) -> bytes:
    """Return a PNG; empty if there is nothing to draw.

    Args:
        runs: What each run logged, by its name.
        x_label: What the values are by.
        log: Whether y axes are logarithmic, where all values are above 0; None where it helps.
        smoothing: Weight of the past in a running mean, from 0 (none) up to, not including, 1;
            the raw curve stays behind it, pale. None smooths many points.
        marks: Where dashed vertical lines go: later attempts.
    """
    from matplotlib.figure import Figure

    found = families(name for values in runs.values() for name in values)
    if not found:
        return b""
    columns = min(_COLUMNS, len(found))
    rows = math.ceil(len(found) / columns)
    figure = Figure(figsize=(SIZE[0] * columns, SIZE[1] * rows), layout="constrained")
    parts = figure.subfigures(rows, columns, squeeze=False).flat
    for part, (family, members) in zip(parts, found.items(), strict=False):
        lines = _lines(runs, members)
        draw_panel(
            *(part, lines), label=family, x_label=x_label, log=log, smoothing=smoothing, marks=marks
        )
    return png(figure, dots=100)


def families(metrics: Iterable[str]) -> dict[str, list[str]]:
    """Return the names of metrics by what they measure, sorted; each name once."""
    found: dict[str, list[str]] = defaultdict(list)
    for name in dict.fromkeys(metrics):
        found[family_of(name)].append(name)
    return dict(sorted(found.items()))


def family_of(metric: str) -> str:
    """Return what a metric measures, without where and how often: `val/loss_epoch` is `loss`."""
    stripped = metric
    while (shorter := _PLACE.sub("", stripped)) != stripped and shorter:
        stripped = shorter
    return stripped


def _lines(runs: Mapping[str, Values], members: Sequence[str]) -> list[Line]:
    colors = run_colors(len(runs))
    lines = []
    for (run, values), color in zip(runs.items(), colors, strict=True):
        for kind, name in enumerate(name for name in members if name in values):
            if len(runs) == 1:
                lines.append(Line(name, values[name], COLORS[kind % len(COLORS)]))
            else:
                dashes = DASHES[members.index(name) % len(DASHES)]
                label = run if len(members) == 1 else f"{run} {name}"
                lines.append(Line(label, values[name], color, dashes))
    return lines
