"""A user's own script and own stage body: no Lightning, no options of ours, no torch."""

import os
import signal
import time

import pytest

from curitorch.external.rundir import TrainingRun
from curitorch.stages.processes import survivors

SCRIPT = """
    import argparse, os, pathlib, time
    parser = argparse.ArgumentParser()
    parser.add_argument("--run_dir"); parser.add_argument("--note"); parser.add_argument("--data")
    options = parser.parse_args()
    rank = os.environ["RANK"]
    print("RANK", rank, "of", os.environ["WORLD_SIZE"], options.note, flush=True)
    time.sleep(float(os.environ.get("SLEEP", "0")))
    run = pathlib.Path(options.run_dir)
    if rank == "0" and options.note != "no model":
        (run / "model.ckpt").write_text(pathlib.Path(options.data, "data.txt").read_text())
"""

EXPERIMENT = """
    import curifactory as cf
    from curitorch.cachers import DatasetCacher, TrainingRunCacher
    from curitorch.params import CheckpointParams, LaunchParams
    from curitorch.stages import run_training

    @cf.stage([], [cf.Lazy("dataset", resolve=False)], [DatasetCacher])
    def make(record):
        path = record.get_dir("raw")
        with open(path + "/data.txt", "w") as file:
            file.write("DATA")
        return path

    @cf.stage(["dataset"], ["run"], [TrainingRunCacher])
    def train(record, dataset):
        return run_training(
            record, "script.py", inputs={"data": dataset}, options={"note": "NOTE"},
            launch=LaunchParams(processes_per_node=2, grace_seconds=5),
        )

    def run(param_sets, manager):
        for params in param_sets:
            train(make(cf.Record(manager, params)))
"""

PARAMS = """
    import curifactory as cf
    def get_params():
        return [cf.ExperimentParameters(name="one")]
"""


@pytest.fixture
def own(project):
    project.write({"script.py": SCRIPT, "experiments/toy.py": EXPERIMENT, "params/one.py": PARAMS})
    return project


def test_any_script_gets_its_logs_and_is_complete_when_all_ranks_end_well(own):
    result = own.run()
    assert result.returncode == 0, result.stdout + result.stderr
    [path] = own.runs()
    run = TrainingRun(path)
    assert run.is_complete
    assert run.model_path.read_text() == "DATA"
    assert [run.log(rank) for rank in (0, 1)] == ["RANK 0 of 2 NOTE\n", "RANK 1 of 2 NOTE\n"]
    again = own.run()
    assert "Launching" not in again.stdout


def test_a_script_that_leaves_no_model_is_not_complete(own):
    own.change("experiments/toy.py", '"NOTE"', '"no model"')
    result = own.run()
    assert result.returncode == 1
    assert "exited with code 0, but left no model" in result.stdout


@pytest.mark.slow
def test_a_script_that_knows_no_signals_ends_with_the_experiment(own):
    own.change("script.py", '"SLEEP", "0"', '"SLEEP", "200"')
    experiment = own.start()
    while not any(
        "RANK" in log.read_text() for log in own.path.glob("data/cache/*/logs/*/rank-*.log")
    ):
        assert experiment.poll() is None
        time.sleep(0.05)
    experiment.send_signal(signal.SIGTERM)
    experiment.communicate(timeout=120)
    assert experiment.returncode == -signal.SIGTERM
    assert survivors(own.runs()[0]) == []


@pytest.mark.slow
def test_ranks_in_the_environment_do_not_reach_the_trainers(own, monkeypatch):
    monkeypatch.setattr(os, "environ", {**os.environ, "MASTER_PORT": "1", "GROUP_RANK": "7"})
    assert own.run().returncode == 0


def test_a_path_that_is_not_there_is_the_scripts_error_and_named(own):
    own.change("experiments/toy.py", 'inputs={"data": dataset}', 'inputs={"data": "no where"}')
    result = own.run()
    assert result.returncode == 1
    assert "FileNotFoundError" in result.stdout
    assert "no where/data.txt" in result.stdout
