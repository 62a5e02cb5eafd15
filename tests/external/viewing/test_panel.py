"""What can be seen of a metric in one panel, wherever it is shown."""

import math

import pytest
from matplotlib.figure import Figure

from curitorch.external.viewing.panel import COLORS, Line, draw_panel


def draw(*points, **options):
    """Return the axes of a panel, and the names above it."""
    figure = Figure(layout="constrained")
    lines = [Line(f"line {n}", each, COLORS[n]) for n, each in enumerate(points)]
    draw_panel(figure, lines, label="loss", **options)
    [legend] = figure.legends
    return figure.axes[0], [text.get_text() for text in legend.get_texts()]


def test_the_extremes_are_marked_where_they_are_and_said():
    axes, [name] = draw({1: 3.0, 2: 0.5, 3: 7.25, 4: math.nan, 5: math.inf})
    low, high = "\N{BLACK DOWN-POINTING SMALL TRIANGLE}", "\N{BLACK UP-POINTING SMALL TRIANGLE}"
    assert name.split()[2:] == [low, "0.5", high, "7.25"]
    drawn = {line.get_marker(): line for line in axes.lines}
    assert drawn["v"].get_xydata().tolist() == [[2, 0.5]]
    assert drawn["^"].get_xydata().tolist() == [[3, 7.25]]
    assert list(drawn["x"].get_xdata()) == [4, 5]  # crosses where there is no number
    assert list(drawn["."].get_xdata()) == [1, 2, 3]


def test_extremes_of_many_lines_would_be_a_thicket():
    axes, names = draw(*[{1: 1.0, 2: 2.0}] * 5)
    assert names == [f"line {n}" for n in range(5)]
    assert {line.get_marker() for line in axes.lines}.isdisjoint("v^")


@pytest.mark.parametrize(
    ("log", "low", "scale"),
    [(None, 0.01, "log"), (False, 0.01, "linear"), (True, 5, "log"), (True, -1, "linear")],
)
def test_an_axis_is_logarithmic_where_that_helps_or_is_wanted(log, low, scale):
    axes, _ = draw({step: low + 10 * math.exp(-step / 5) for step in range(100)}, log=log)
    assert axes.get_yscale() == scale


def test_many_points_are_a_mean_with_the_points_behind_it():
    axes, _ = draw({step: float(step % 2) for step in range(400)})
    raw, mean = [line.get_ydata() for line in axes.lines if len(line.get_ydata()) == 400]
    assert max(raw) == 1
    assert all(abs(value - 0.5) < 0.2 for value in mean)
