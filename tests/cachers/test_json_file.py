"""A dictionary as a JSON file: an evaluation's metrics."""

import json
from pathlib import Path

import pytest

from curitorch.cachers import JsonFileCacher
from curitorch.external.schema import UnreadableFile
from curitorch.params.curifactory_api import ExperimentParameters, Record, stage

METRICS = {"test/acc": 0.1 + 0.2, "loss ü": float("inf"), "n": 3}


def evaluate(manager):
    """Return what a stage leaves in the state, and whether its body ran."""
    ran = []

    @stage(None, ["metrics"], [JsonFileCacher])
    def evaluate(record):
        ran.append(record)
        return METRICS

    record = evaluate(Record(manager, ExperimentParameters(name="test")))
    return record.state["metrics"], bool(ran)


@pytest.mark.parametrize("size", [0, 12])
def test_metrics_are_cached_until_their_file_is_torn(experiment, size):
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
