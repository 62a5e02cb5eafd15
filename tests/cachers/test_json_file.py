"""A dictionary as a JSON file: an evaluation's metrics."""

import json
from pathlib import Path

import pytest

from curitorch.cachers import JsonFileCacher
from curitorch.external.schema import UnreadableFile
from curitorch.params.curifactory_api import ExperimentParameters, Record
from curitorch.stages import evaluation, external_evaluation

METRICS = {"test/acc": 0.1 + 0.2, "loss ü": float("inf"), "n": 3}


@pytest.fixture
def evaluate(monkeypatch):
    """Run the stage that evaluates; return its metrics and whether its body ran."""

    def run(manager):
        ran = []
        monkeypatch.setattr(
            evaluation, "evaluate_run", lambda *arguments, **options: ran.append(1) or METRICS
        )
        record = Record(manager, ExperimentParameters(name="test"))
        record.state["run"] = "a run"
        external_evaluation()(record)
        return record.state["metrics"], bool(ran)

    return run


@pytest.mark.parametrize("size", [0, 12])
def test_an_evaluations_metrics_are_cached_until_their_file_is_torn(experiment, evaluate, size):
    assert evaluate(experiment()) == (METRICS, True)
    assert evaluate(experiment()) == (METRICS, False)
    (file,) = Path("data/cache").glob("*_metrics.json")
    file.write_bytes(file.read_bytes()[:size])

    with pytest.raises(UnreadableFile, match="torn or altered"):
        JsonFileCacher(file).load()
    assert evaluate(experiment()) == (METRICS, True)


def test_a_file_of_curifactorys_own_cacher_stays_cached_until_it_is_torn(tmp_path):
    file = tmp_path / "metrics.json"
    file.write_text(json.dumps(METRICS, indent=4))
    assert JsonFileCacher(file).check()
    assert JsonFileCacher(file).load() == METRICS
    file.write_text(file.read_text()[:-1])
    assert not JsonFileCacher(file).check()
