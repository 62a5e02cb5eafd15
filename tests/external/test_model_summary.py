"""What a model is made of, with the shapes of what goes through it where an example is known."""

import random

import pytest
import torch
from lightning.pytorch import LightningModule

from curitorch.external.journal import Journal
from curitorch.external.model_summary import summarize
from curitorch.external.rundir import TrainingRun
from curitorch.external.viewing.model_rows import headline, layer_rows
from curitorch.stages.report import run_report


class Net(LightningModule):
    def __init__(self, example=True):
        super().__init__()
        self.body = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.Dropout())
        self.memory = torch.nn.LSTM(2, 4)
        if example:
            self.example_input_array = torch.zeros(5, 3)

    def forward(self, x):
        random.random()
        torch.rand(1)
        return self.memory(self.body(x))[0]


def test_an_example_tells_the_shapes_and_draws_no_random_number_for_good():
    model = Net().train()
    torch.manual_seed(1)
    random.seed(1)
    summary = summarize(model)
    drawn = random.random(), torch.rand(1).item()
    torch.manual_seed(1)
    random.seed(1)
    assert drawn == (random.random(), torch.rand(1).item())
    assert model.body.training
    shapes = {each["name"]: (each["in"], each["out"]) for each in summary["layers"]}
    assert shapes == {
        "body": ([5, 3], [5, 2]),
        "body.0": ([5, 3], [5, 2]),
        "body.1": ([5, 2], [5, 2]),
        "memory": ([5, 2], [[5, 4], [[1, 4], [1, 4]]]),
    }


def test_without_an_example_nothing_is_run_and_a_bad_one_is_one_warning(caplog):
    assert all("in" not in each for each in summarize(Net(example=False))["layers"])
    model = Net()
    model.example_input_array = torch.zeros(5, 7)
    summary = summarize(model.train())
    assert all("in" not in each for each in summary["layers"])
    assert model.body.training
    [said] = [each for each in caplog.messages if "summary" in each]
    assert said.startswith("The model's summary has no shapes: its example_input_array led to Runt")


@pytest.mark.parametrize("example", [True, False])
def test_report_and_notebook_show_the_modules(tmp_path, example):
    summary = summarize(Net(example))
    with Journal(tmp_path / "journal.jsonl") as journal:
        journal.write("model", **summary)
    run = TrainingRun(tmp_path)
    [first, *_] = layer_rows(summary)
    assert first["layer"] == "body"
    assert first.get("in") == ("5 \N{MULTIPLICATION SIGN} 3" if example else None)
    shown = run._repr_html_()
    reported = "".join(run_report(run, {}))
    for text, cross in ((shown, "\N{MULTIPLICATION SIGN}"), (reported, "&#215;")):
        assert headline(summary) in text
        assert (f"<td>5 {cross} 3</td>" in text) == example
        assert ("<th>out</th>" in text) == example
