"""One panel of curves: how a metric looks in reports, in notebooks and while it is followed.

The lowest and the highest value of each line are marked. Where most values would be squeezed into
the lowest tenth, the axis is logarithmic. Crosses at the bottom are NaN or infinite.
"""

import io
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, FigureBase

COLORS = (
    *("#2563eb", "#ea580c", "#059669", "#9333ea", "#dc2626"),
    *("#0891b2", "#ca8a04", "#db2777", "#4b5563", "#65a30d"),
)
DASHES = ("-", "--", ":", "-.")
SIZE = (5.8, 3.3)
"""Of a panel, in inches."""

_STYLE: dict[Any, Any] = {
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
_NOISY = 200  # points from which on the line drawn is a mean, the points faint behind it
_FEW = 40  # points up to which each is a dot
_MARKED = 4  # lines up to which their extremes are marked
_HUGE = 1e150  # beyond it matplotlib overflows; a diverged loss counts as infinite
_LONGEST = 60
_LONG = 36  # with its extremes: longer names do not stand beside each other


@dataclass(frozen=True)
class Line:
    """What one metric of one run was: `points` are its values by step, or whatever x is."""

    label: str
    points: Mapping[float, float]
    color: str
    dashes: str = "-"

    def finite(self) -> tuple[list[float], list[float]]:
        """Return where there are values that can be drawn, in order, and the values."""
        kept = sorted((x, y) for x, y in self.points.items() if abs(y) < _HUGE)
        return [x for x, _ in kept], [y for _, y in kept]

    def lost(self) -> list[float]:
        """Return where the value was NaN or infinite."""
        return [x for x, y in self.points.items() if not abs(y) < _HUGE]


def draw_panel(
    figure: "FigureBase",
    lines: Sequence[Line],
    *,
    label: str,
    x_label: str = "step",
    log: bool | None = None,
    smoothing: float | None = None,
    marks: Sequence[float] = (),
    epochs: Mapping[int, float] | None = None,
) -> None:
    """Draw lines into an empty figure or a part of one, their names above them.

    Args:
        figure: Where; it has the layout "constrained".
        lines: What is drawn.
        label: Of the y axis.
        x_label: Of the x axis.
        log: Whether the y axis is logarithmic, where all values are above 0; None where it helps.
        smoothing: As of `smoothed`; the raw line stays behind it, pale. None smooths many points.
        marks: Where dashed vertical lines go: later attempts.
        epochs: The last step of each epoch, which are written above.
    """
    from matplotlib import rc_context
    from matplotlib.ticker import MaxNLocator

    with rc_context(_STYLE):
        axes = figure.add_subplot(xlabel=x_label, ylabel=_shown(label))
        axes.grid(visible=True, linewidth=0.7)
        axes.set_axisbelow(True)
        axes.ticklabel_format(useOffset=False)
        if x_label != "seconds":  # no half steps
            whole = MaxNLocator("auto", steps=[1, 2, 2.5, 5, 10], integer=True)
            axes.xaxis.set_major_locator(whole)
        drawn: list[float] = []
        for line in lines:
            _draw(axes, line, smoothing=smoothing, is_marked=len(lines) <= _MARKED)
            drawn += line.finite()[1]
        if needs_log_axis(drawn) if log is None else log and min(drawn, default=0) > 0:
            axes.set_yscale("log")
        for mark in marks:
            axes.axvline(mark, color="#9ca3af", linestyle="--", linewidth=0.8)
        _write_epochs(axes, epochs or {})
        _name(figure, axes, len(lines))


def panel(lines: Sequence[Line], **options: Any) -> bytes:
    """Return a PNG of one panel; the options are those of `draw_panel`."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=SIZE, layout="constrained")
    draw_panel(figure, lines, **options)
    return png(figure, dots=170)


def png(figure: "Figure", *, dots: int) -> bytes:
    """Return a figure as a PNG with so many dots per inch."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dots)
    return buffer.getvalue()


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


def smoothed(values: Sequence[float], weight: float) -> list[float]:
    """Return the running mean whose first values are not drawn to 0.

    Args:
        values: Finite numbers.
        weight: Of the past, from 0 (none) up to, not including, 1.

    Raises:
        ValueError: `weight` is another number.
    """
    if not 0 <= weight < 1:
        raise ValueError(f"smoothing is {weight!r}, expected a number from 0 to below 1.")
    means, total, share = [], 0.0, 0.0
    for value in values:
        total = weight * total + (1 - weight) * value
        share = weight * share + (1 - weight)
        means.append(total / share)
    return means


def _draw(axes: "Axes", line: Line, *, smoothing: float | None, is_marked: bool) -> None:
    xs, ys = line.finite()
    label = _shown(line.label)
    style: dict[str, Any] = {"color": line.color, "linewidth": 1.6}
    varies = len(set(ys)) > 1
    if is_marked and varies:
        label += f"   \N{BLACK DOWN-POINTING SMALL TRIANGLE} {min(ys):.4g}"
        label += f"  \N{BLACK UP-POINTING SMALL TRIANGLE} {max(ys):.4g}"
        for extreme, marker in ((min(ys), "v"), (max(ys), "^")):
            mark: dict[str, Any] = {"color": line.color, "markersize": 7, "mec": "white"}
            axes.plot(xs[ys.index(extreme)], extreme, marker, zorder=5, **mark)
    means = None
    if smoothing and varies:
        means = smoothed(ys, smoothing)
    elif smoothing is None and varies and len(ys) > _NOISY:
        means = _centered_means(ys, len(ys) // 50)
    if means is not None:
        axes.plot(xs, ys, color=line.color, linewidth=0.6, alpha=0.25)
    dots = "." if len(ys) < _FEW and means is None else ""
    shown = means or ys
    axes.plot(xs, shown, line.dashes, marker=dots, markersize=4, label=label, **style)
    lost, bottom = line.lost(), axes.get_xaxis_transform()
    heights = [0.03] * len(lost)
    axes.plot(lost, heights, "x", color=line.color, markersize=5, transform=bottom)


def _name(figure: "FigureBase", axes: "Axes", lines: int) -> None:
    _, labels = axes.get_legend_handles_labels()
    longest = max(map(len, labels), default=0)
    columns = 1 if longest > _LONG else 2 if lines <= 12 else 4
    size = 8.5 if lines <= 12 else 6.5
    if lines <= 12 * columns:
        figure.legend(loc="outside upper left", ncols=columns, fontsize=size, handlelength=2.6)


def _write_epochs(axes: "Axes", ends: Mapping[int, float]) -> None:
    """Put whole epochs above the steps."""
    if len(ends) < 2:
        return
    every = max(math.ceil(len(ends) / 8), 1)
    chosen = list(ends.items())[::every]
    if chosen[-1][0] == max(ends):
        chosen.pop()  # at the edge its number would be cut
    above = axes.secondary_xaxis("top")
    above.set_xticks([step for _, step in chosen], [f"{epoch + 1}" for epoch, _ in chosen])
    above.tick_params(length=3, labelsize=7.5, colors="#9ca3af")
    above.spines["top"].set_visible(False)
    above.set_xlabel("epochs", fontsize=7.5, color="#9ca3af", loc="right", labelpad=2)


def _centered_means(values: Sequence[float], width: int) -> list[float]:
    """Return the mean of about `width` values around each."""
    sums = [0.0, *itertools.accumulate(values)]
    half, last = max(width // 2, 1), len(values)
    spans = [(max(at - half, 0), min(at + half + 1, last)) for at in range(last)]
    return [(sums[end] - sums[begin]) / (end - begin) for begin, end in spans]


def _shown(name: str) -> str:
    """Return a name as a label: matplotlib would set `$` as mathematics, and hide `_private`."""
    short = name if len(name) <= _LONGEST else f"{name[: _LONGEST - 1]}\N{HORIZONTAL ELLIPSIS}"
    return (" " if short.startswith("_") else "") + short.replace("$", r"\$")
