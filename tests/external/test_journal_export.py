"""Exports of a journal, read back by the libraries that the viewers use."""

import math
import subprocess
import sys

import pandas as pd
import pytest

from curitorch.external.journal import Journal
from curitorch.external.rundir import TrainingRun


@pytest.fixture
def run(tmp_path):
    """A run whose second attempt went on from step 2."""
    path = tmp_path / "runs" / "a $run"
    clock = iter(1000.5 + second for second in range(100))
    with Journal(path / "journal.jsonl", clock=lambda: next(clock)) as journal:
        journal.attempt(0, resume_step=0)
        journal.write("hyperparameters", values={"lr": 0.1, "optimizer": {"name": "SGD", "x": []}})
        layer = {"name": "head", "type": "Linear", "parameters": 3, "trainable": 3, "depth": 1}
        journal.write("model", type="Net", parameters=3, trainable=3, layers=[layer])
        for step in (1, 2, 3):
            journal.write("metric", step=step, epoch=0, metrics={"val/loss": 1 / step})
        journal.attempt(1, resume_step=2)
        values = {"val/loss": float("nan"), "note": "words", "layers": [1, 2]}
        journal.write("metric", step=3, epoch=1, metrics=values)
    return TrainingRun(path)


def export(*words, code=0):
    done = subprocess.run(
        [sys.executable, "-m", "curitorch.external.journal_export", *map(str, words)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code, done.stderr
    return done.stdout + done.stderr


def test_tensorboard_shows_every_step_once_with_its_time(run, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    out = tmp_path / "viewed"
    assert export(run.path, "--to", "tensorboard", out) == f"{out}\n"
    shown = EventAccumulator(str(out)).Reload()
    assert set(shown.Tags()["scalars"]) == {"val/loss", "epoch"}
    losses = shown.Scalars("val/loss")
    assert [(each.wall_time, each.step) for each in losses] == [
        (1003.5, 1),
        (1004.5, 2),
        (1007.5, 3),
    ]
    assert [each.value for each in losses[:2]] == [1.0, 0.5]
    assert math.isnan(losses[2].value)
    assert [each.value for each in shown.Scalars("epoch")] == [0, 0, 1]
    text = shown.Tensors("model")[0].tensor_proto.string_val[0].decode()
    assert "| head | Linear | 3 |" in text
    hyperparameters = shown.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    assert b"optimizer.name" in hyperparameters
    assert b"SGD" in hyperparameters
    assert "has event files already" in export(run.path, "--to", "tensorboard", out, code=1)


def test_csv_is_the_table_of_metrics(run, tmp_path):
    out = tmp_path / "a" / "metrics.csv"
    export(run.path, "--to", "csv", out)
    table = pd.read_csv(out)
    assert table["val/loss"].tolist()[:2] == [1.0, 0.5]
    assert table[["step", "attempt"]].to_numpy().tolist() == [[1, 0], [2, 0], [3, 1]]
    assert table["note"].tolist()[2] == "words"


def test_several_runs_get_a_name_each_and_what_is_no_run_is_said(run, tmp_path):
    other = tmp_path / "runs" / "b"
    with Journal(other / "journal.jsonl") as journal:
        journal.write("metric", step=1, epoch=None, metrics={"loss": 1.0})
    export(run.path, other, "--to", "csv", tmp_path / "tables")
    assert sorted(path.name for path in (tmp_path / "tables").iterdir()) == ["a $run.csv", "b.csv"]
    assert "it has no journal.jsonl" in export(tmp_path, "--to", "csv", tmp_path / "x", code=1)
    assert "have one name" in export(other, other, "--to", "csv", tmp_path / "x", code=1)
    assert "Invalid value for '--to'" in export(other, "--to", "excel", tmp_path / "x", code=2)


def test_tensorboard_is_asked_for_where_it_is_missing(run, tmp_path):
    code = (
        "import sys; sys.modules['tensorboard'] = None\n"
        "from curitorch.external.journal_export import main\n"
        f"main([{str(run.path)!r}, '--to', 'tensorboard', {str(tmp_path / 'x')!r}])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert 'pip install "curitorch[tensorboard]"' in done.stderr
