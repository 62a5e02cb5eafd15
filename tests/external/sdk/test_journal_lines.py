"""The lines of steps and metrics are those that `to_line` makes, however they are made."""

import json
import math

import pytest

from curitorch.external.journal import to_line
from curitorch.external.sdk.journal_reporter import metric_line, step_line


@pytest.mark.parametrize("values", [
    {},
    {"loss": 0.25, "acc": 1e-300, "lr": 3e-7, "large": 1e22, "minus": -0.0},
    {'a "name", {with} \\ signs': 0.1, "größe\n": 2.5},
    {"loss": math.nan, "norm": math.inf, "rate": -math.inf, "acc": 0.5},
    {"loss": 0.25, "text": "x", "count": 3, "is_best": True, "none": None, "list": [1, [2.5]]},
])  # fmt: skip
@pytest.mark.parametrize("epoch", [None, 0, 7])
def test_a_line_of_metrics_is_that_of_to_line(values, epoch):
    line = metric_line(values, 12, epoch)
    now = json.loads(line)["time"]
    record = {"event": "metric", "time": now, "step": 12, "epoch": epoch, "metrics": values}
    by_hand, made = line.partition(b'"step"'), to_line(record).partition(b'"step"')
    assert by_hand[2] == made[2]
    assert json.loads(by_hand[0] + b'"step": 1}') == json.loads(made[0] + b'"step": 1}')


def test_a_line_of_a_step_is_valid_json():
    assert json.loads(step_line(3, 0.5, None)).items() >= {
        "event": "step", "step": 3, "epoch": None, "seconds": 0.5
    }.items()  # fmt: skip
