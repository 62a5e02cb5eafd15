"""What a report says of one run, and of several."""

import math
import re
from types import SimpleNamespace

import pandas as pd
import pytest

from curitorch.external.journal import Journal
from curitorch.external.rundir import TrainingRun
from curitorch.external.viewing.panel import needs_log_axis, run_colors
from curitorch.stages.comparison import better, differing, report_comparison
from curitorch.stages.curves import curves, metric_names, overlaid
from curitorch.stages.report import checkpoint_table, metric_table, report_training, run_report
from curitorch.stages.tables import Html, table


def write_run(path, *, rate=0.1, steps=40):
    with Journal(path / "journal.jsonl") as journal:
        journal.attempt(0, resume_step=0, world_size=2)
        journal.write("hyperparameters", values={"model": {"lr": rate, "width": 4}, "<b>": "ü"})
        layer = {"name": "head", "type": "Linear", "parameters": 3, "trainable": 3, "depth": 1}
        model = {"type": "Net", "parameters": 3, "trainable": 3, "bytes": 12, "modules": 1}
        journal.write("model", **model, layers=[layer])
        for step in range(1, steps + 1):
            epoch, loss = (step - 1) // 10, math.exp(-rate * step) + 1e-3
            journal.write("step", step=step, epoch=epoch, seconds=0.1)
            metrics = {"train/loss": loss, "val_loss": float("nan") if step == 20 else 1.1 * loss}
            journal.write("metric", step=step, epoch=epoch, metrics=metrics)
            metrics = {"acc": 1 - loss, "words": "many", "lists": [1]}
            journal.write("metric", step=step, epoch=epoch, metrics=metrics)
        file = "journal/checkpoints/best.ckpt"
        journal.write("checkpoint", step=30, epoch=2, bytes=2_000_000, file=file)
        journal.write("checkpoint", step=40, epoch=3, bytes=None, file="gone.ckpt")
        kept = {"monitor": "val_loss", "mode": "min", "best": file, "last": ""}
        journal.write("kept", step=40, **kept, scores={file: 0.25})
        journal.write("end", status="success")
    (path / "journal" / "checkpoints").mkdir(parents=True)
    (path / file).write_bytes(b"weights")
    return TrainingRun(path)


def size(png):
    assert png.startswith(b"\x89PNG")
    return int.from_bytes(png[16:20]), int.from_bytes(png[20:24])


def test_a_report_has_curves_tables_and_settings_in_ascii_only(tmp_path):
    run = write_run(tmp_path / "a <run> ü")
    drawn = curves(run.metrics(), {"val_loss": [20]})
    assert list(drawn) == ["acc", "loss"]  # `train/loss` and `val_loss` are one figure
    assert all(size(each)[0] > 900 for each in drawn.values())
    page = "".join(run_report(run, drawn))
    assert page.isascii()
    assert page.count("data:image/png;base64,") == 2
    assert "a &lt;run&gt; &#252;" in page
    assert '<span class="state complete">complete</span>' in page
    assert "<b>2</b> processes" in page
    assert "<b>1</b> attempt " in page
    with Journal(run.path / "journal.jsonl") as journal:
        journal.attempt(1, resume_step=40, world_size=2)
    assert '<span class="state complete">' not in "".join(run_report(TrainingRun(run.path), {}))
    assert re.search(r"<tr><td>val_loss</td>.*<td class=\"number\">39</td></tr>", page)
    assert "<td>model.lr</td><td>0.1</td>" in page
    assert "Net: 3 parameters" in page
    assert '<tr class="gone">' in page  # what was deleted since
    assert "&lt;b&gt;" in page


def test_checkpoints_of_lightning_stand_beside_those_of_the_store(tmp_path):
    frame = checkpoint_table(write_run(tmp_path / "run"))
    assert frame["file"].tolist() == ["journal/checkpoints/best.ckpt", "gone.ckpt"]
    assert frame["exists"].tolist() == [True, False]
    assert frame["MB"].tolist()[0] == 2.0
    assert frame["val_loss"].tolist()[0] == 0.25
    assert checkpoint_table(TrainingRun(tmp_path)).empty


def test_extremes_are_those_of_what_is_finite(tmp_path):
    run = write_run(tmp_path / "run")
    rows = {row["metric"]: row for row in metric_table(run.metrics())}
    assert set(rows) == set(metric_names(run.metrics())) == {"train/loss", "val_loss", "acc"}
    loss = rows["train/loss"]
    assert (loss["at step "], loss["at step  "], loss["logged"]) == (40, 1, 40)
    assert loss["lowest"] == loss["last"] < loss["highest"]
    assert rows["val_loss"]["logged"] == 39


@pytest.mark.parametrize(
    "name", ["$x^$", "50 $ or {less}$", "_hidden", "n" * 400, "", "ü <b>/a\\b"]
)
def test_a_metric_may_be_called_as_anything(tmp_path, name):
    with Journal(tmp_path / "journal.jsonl") as journal:
        for step in range(5):
            journal.write("metric", step=step, epoch=None, metrics={name: 0.5 * step})
    reported = []
    run = TrainingRun(tmp_path)
    report_training(SimpleNamespace(report=reported.append), run)
    report_comparison(SimpleNamespace(report=reported.append), {name: run, "$": run})
    assert all("".join(each.html_string).count("data:image/png") == 1 for each in reported)
    assert len(list((tmp_path / "report").glob("*.png"))) == 1


def test_an_axis_is_logarithmic_where_that_helps_only():
    falling = [10 * math.exp(-step / 10) + 0.01 for step in range(200)]
    accuracy = [0.01 + 0.99 * (1 - math.exp(-step / 10)) for step in range(200)]
    assert needs_log_axis(falling)
    assert not needs_log_axis(accuracy)  # most of it lies at the top
    assert not needs_log_axis([each - 0.5 for each in falling])  # some are negative
    assert not needs_log_axis([1.0, 2.0, 3.0, 4.0])
    assert not needs_log_axis([])


def test_many_points_many_runs_and_empty_tables_are_drawn(tmp_path):
    columns = {"step": range(5000), "epoch": 0, "time": 0.0, "attempt": 0}
    long = pd.DataFrame({**columns, "loss": [1 / (step + 1) for step in range(5000)]})
    long.loc[7, "loss"] = float("inf")
    empty = TrainingRun(tmp_path).metrics()
    runs = {f"run {number}": long.head(100 + number) for number in range(13)}
    images = overlaid({**runs, "none": empty}, run_colors(14))
    assert list(images) == ["loss"]
    assert len(set(run_colors(14))) == 14
    assert curves(empty) == {}
    assert list(curves(long)) == ["loss"]
    one = long.head(1)
    assert list(curves(one)) == ["loss"]


def test_a_comparison_shows_what_differs_and_who_is_best(tmp_path):
    runs = {f"lr {rate}": write_run(tmp_path / str(rate), rate=rate) for rate in (0.1, 0.2, 0.05)}
    reported = []
    record = SimpleNamespace(report=reported.append)
    told = {label: {"trainer.model_args.lr": float(label[3:]), "seed": 1} for label in runs}
    frame = report_comparison(record, runs, told)
    assert frame.columns[:2].tolist() == ["run", "model.lr"]  # once, though told and logged
    assert frame["model.lr"].tolist() == [0.1, 0.2, 0.05]
    page = "".join(reported[0].html_string)
    assert page.isascii()
    assert page.count("data:image/png") == 3  # one per metric
    best = re.findall(r"<tr><td><span[^>]*></span>([^<]*)</td>(?:(?!</tr>).)*?number best", page)
    assert best == ["lr 0.2"]


def test_only_names_that_tell_say_which_value_is_better():
    assert [better(name) for name in ("val/loss", "val_acc", "lr", "RMSE")] == [min, max, None, min]
    assert differing({"a": {"x": [1], "y": 2}, "b": {"x": [2], "y": 2}}) == {
        "a": {"x": "[1]"},
        "b": {"x": "[2]"},
    }


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, ""),
        (float("nan"), ""),
        (12345678, "12\N{NARROW NO-BREAK SPACE}345\N{NARROW NO-BREAK SPACE}678"),
        (0.000123456, "0.00012346"),
        (True, "yes"),
        ("<i>&", "&lt;i&gt;&amp;"),
        (Html("<i>x</i>"), "<i>x</i>"),
    ],
)
def test_a_cell_is_readable_and_escaped(value, shown):
    assert f">{shown}</td>" in table([{"a": value, "b": 1}, {"a": "words", "b": 1}])
