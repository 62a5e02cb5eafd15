import math

import pandas as pd
import pytest

from curitorch.cachers import MetricsCacher, TrainingRun
from curitorch.params.curifactory_api import ExperimentParameters, Record, stage

FRAME = pd.DataFrame(
    {
        "step": [1, 2, 3],
        "val/loss, $ ü": [0.1 + 0.2, math.nan, 3e-7],
        "up": [math.inf, -math.inf, 1e300],
    }
)


def test_metrics_come_back_exactly(tmp_path):
    MetricsCacher(tmp_path / "metrics.csv").save(FRAME)
    loaded = MetricsCacher(tmp_path / "metrics.csv").load()
    pd.testing.assert_frame_equal(loaded, FRAME, check_exact=True)


def test_what_a_run_logged_is_kept(make_run, tmp_path):
    run = TrainingRun(make_run(tmp_path / "run", loss=1 / 3))
    MetricsCacher(tmp_path / "metrics").save(run)
    loaded = MetricsCacher(tmp_path / "metrics").load()

    pd.testing.assert_frame_equal(loaded, run.metrics(), check_exact=True)
    assert list(loaded["val/loss"]) == [1 / 3, 1 / 6]


def test_a_run_that_logged_nothing_has_an_empty_table(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "journal.jsonl").touch()
    MetricsCacher(tmp_path / "metrics").save(TrainingRun(tmp_path / "run"))
    loaded = MetricsCacher(tmp_path / "metrics").load()
    assert list(loaded.columns) == ["step", "epoch", "time", "attempt"]
    assert loaded.empty


def test_metrics_are_cached_until_they_are_torn(experiment):
    def run():
        ran = []

        @stage(None, ["metrics"], [MetricsCacher])
        def measure(record):
            ran.append(record)
            return FRAME

        record = Record(experiment(), ExperimentParameters(name="test"))
        measure(record)
        return bool(ran), record

    assert run()[0]
    ran, record = run()
    assert not ran
    path = record.manager.artifacts[0].file
    assert path.endswith("_metrics.csv")
    with open(path, "r+") as file:  # noqa: PTH123  # to cut it
        file.truncate(10)
    assert run()[0]


def test_what_is_no_table_is_told(tmp_path):
    for value in (None, [1], "metrics.csv"):
        with pytest.raises(TypeError, match="expected a TrainingRun or a pandas DataFrame"):
            MetricsCacher(tmp_path / "metrics").save(value)
