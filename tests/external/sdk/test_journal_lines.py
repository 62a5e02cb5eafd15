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
    {"loss": 0.5, "iteration": 3, "minus": -(2**63)},
    {"loss": math.nan, "norm": math.inf, "rate": -math.inf, "acc": 0.5},
    {"loss": 0.25, "text": "x", "count": 3, "is_best": True, "none": None, "list": [1, [2.5]]},
])  # fmt: skip
@pytest.mark.parametrize("epoch", [None, 0, 7])
def test_a_line_of_metrics_is_that_of_to_line(values, epoch):
    now = 1763719201.5
    line = metric_line(now, values, 12, epoch)
    record = {"event": "metric", "time": now, "step": 12, "epoch": epoch, "metrics": values}
    by_hand, made = line.partition(b'"step"'), to_line(record).partition(b'"step"')
    assert by_hand[2] == made[2]
    assert json.loads(by_hand[0] + b'"step": 1}') == json.loads(made[0] + b'"step": 1}')


def test_a_line_of_a_step_is_valid_json():
    assert json.loads(step_line(1763719201.25, 3, 0.5, None)) == {
        "event": "step", "time": 1763719201.25, "step": 3, "epoch": None, "seconds": 0.5
    }  # fmt: skip


LATER = """
        import torch
        from curitorch.external import background_journal
        background_journal.INTERVAL = 3600  # the thread makes lines at the end only
        background_journal.PATIENCE = 100
        pf.init(10)
"""


def test_what_is_changed_after_the_call_is_written_as_it_was(scripts):
    code = """
        values = {"loss": 0.5, "tensor": torch.tensor(1.5)}
        pf.metric(values)
        values["loss"] = 7.0
        values["tensor"].fill_(7.0)
        values["more"] = 7.0
        values = {"loss": 0.75}
        pf.metric(values)
        values["loss"] = 7.0
        values = {"loss": 0.25, "list": [1, {"a": 2}], "text": "x"}
        pf.metric(values)
        values["list"][1]["a"] = 7
        values["list"].append(7)
    """
    scripts.managed().run(LATER + code)
    assert [event["metrics"] for event in scripts.events("metric")] == [
        {"loss": 0.5, "tensor": 1.5},
        {"loss": 0.75},
        {"loss": 0.25, "list": [1, {"a": 2}], "text": "x"},
    ]


def test_lines_are_in_the_order_of_the_calls_and_have_their_time(scripts):
    code = """
        for step in range(5):
            with pf.train_step():
                pf.metric({"loss": 0.5})
            pf.metric({"text": "x"})
            pf.metric({"loss": float("nan")})
            time.sleep(0.05)
    """
    scripts.managed().run(LATER + code)
    events = [event for event in scripts.events() if event["event"] in ("step", "metric")]
    assert [(event["step"], event["event"]) for event in events] == [
        (step, event) for step in range(1, 6) for event in ("metric", "step", "metric", "metric")
    ]
    times = [event["time"] for event in events]
    assert times == sorted(times)
    assert times[-1] - times[0] > 0.19


def test_a_number_that_has_no_text_is_an_error_of_the_call(scripts):
    code = """
        for number in (2**64, 10**5000):
            try:
                pf.metric({"number": number})
                print("OK")
            except ValueError as error:
                print("ValueError")
        pf.metric({"loss": 0.5})
    """
    output, complaints = scripts.managed().run(LATER + code)
    assert output.split() == ["OK", "ValueError"]
    assert [e["metrics"] for e in scripts.events("metric")] == [{"number": 2**64}, {"loss": 0.5}]
    assert "Traceback" not in complaints
