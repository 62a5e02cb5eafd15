"""The curves in a notebook: families, several runs, values of any kind."""

import math
import warnings

import pytest

from curitorch.external.viewing.metric_figure import family_of, metric_figure
from curitorch.external.viewing.panel import smoothed

PNG = b"\x89PNG"


@pytest.fixture(autouse=True)
def no_warnings():
    """Nor one of what is drawn; what other tests have left is collected whenever that comes."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for others in (ResourceWarning, pytest.PytestWarning):
            warnings.simplefilter("ignore", others)
        yield


@pytest.mark.parametrize(
    ("metric", "family"),
    [
        ("train_loss", "loss"),
        ("val/loss_epoch", "loss"),
        ("lr-Adam", "lr-Adam"),
        ("test_", "test_"),
    ],
)
def test_a_family_is_what_is_measured_not_where(metric, family):
    assert family_of(metric) == family


def test_nothing_logged_is_no_picture():
    assert metric_figure({}) == b""
    assert metric_figure({"one": {}}) == b""


@pytest.mark.parametrize(
    "name", ["$\\bad$", "$", "_private", "<b>", "ü/ß", "a" * 200, "train_", "loss\nof"]
)
def test_names_of_any_kind_are_drawn(name):
    assert metric_figure({name: {name: {1: 2.0}}, "b": {name: {1: 3.0}}}).startswith(PNG)


@pytest.mark.parametrize(("log", "smoothing"), [(False, 0.0), (True, 0.9), (None, None)])
@pytest.mark.parametrize(
    "values",
    [
        {1: 1.0},
        {1: math.nan},
        {1: math.inf, 2: 1.0, 3: -math.inf},
        {1: 0.0, 2: -1.0},
        {step: 1e-30 * step for step in range(1, 500)},
        {1: 1e308, 2: -1e308},
        {},
    ],
)
def test_values_of_any_kind_are_drawn(values, log, smoothing):
    drawn = metric_figure({"": {"loss": values}}, log=log, smoothing=smoothing, marks=[1])
    assert drawn.startswith(PNG)


def test_twenty_runs_with_their_own_metrics_are_drawn():
    runs = {f"run {i}": {"loss": {1: i, 2: i}, f"own_{i % 3}": {1: 1.0}} for i in range(20)}
    assert metric_figure(runs, x_label="epoch").startswith(PNG)


def test_smoothing_is_a_mean_that_does_not_begin_at_zero():
    assert smoothed([3.0, 3.0, 3.0], 0.9) == pytest.approx([3.0, 3.0, 3.0])
    assert smoothed([1.0, 3.0], 0.5) == pytest.approx([1.0, (0.25 + 1.5) / 0.75])
    with pytest.raises(ValueError, match="expected a number from 0 to below 1"):
        smoothed([1.0], 1.0)
