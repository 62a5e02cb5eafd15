"""Signals to the experiment, to torchrun and to one rank; kill -9 of each."""

import os
import signal
import time

import psutil
import pytest

from curitorch.external.journal import read_journal
from curitorch.external.rundir import TrainingRun
from curitorch.stages.processes import survivors

STEPS = 60


@pytest.fixture
def slow_project(project):
    project.change("params/one.py", 'accelerator="cpu"', 'accelerator="cpu", processes_per_node=2')
    project.change("params/one.py", "epochs=3,", 'epochs=12, model_args={"sleep": 0.1},')
    return project


def wait_for_step(project, step, timeout=60):
    """Wait until the journal has `step`; returns the run directory."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        for path in project.runs():
            events = read_journal(path / "journal.jsonl")
            if any(e["event"] == "step" and e["step"] >= step for e in events):
                return path
        time.sleep(0.05)
    raise AssertionError(f"step {step} was not reached")


def processes_of(path):
    """Return torchrun and the ranks of a run, by name."""
    found = {}
    for process in survivors(path):
        environment = process.environ()
        name = f"rank {environment['RANK']}" if "RANK" in environment else "torchrun"
        if name == "torchrun" or name not in found:
            found[name] = process
    return found


def wait_until_gone(path, seconds=30):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if not survivors(path):
            return
        time.sleep(0.1)
    raise AssertionError([p.cmdline() for p in survivors(path)])


def finish(project, path):
    """Run the same command again and check that nothing is missing or there twice."""
    result = project.run()
    assert result.returncode == 0, result.stdout + result.stderr
    run = TrainingRun(path)
    assert run.is_complete
    assert [e["step"] for e in run.events() if e["event"] == "step"] == list(range(1, STEPS + 1))
    assert run.metrics()["train_loss"].notna().sum() == STEPS
    return run


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_the_experiment_saves_stops_and_is_passed_on(slow_project, number):
    experiment = slow_project.start()
    path = wait_for_step(slow_project, 12)
    experiment.send_signal(number)
    output, _ = experiment.communicate(timeout=30)
    assert experiment.returncode == (-15 if number == signal.SIGTERM else 130), output
    assert survivors(path) == []
    run = TrainingRun(path)
    stop = run.events()[-1]
    assert stop["event"] == "stop"
    assert run.newest_checkpoint().step == stop["step"]
    assert not run.is_complete
    assert [a["outcome"] for a in slow_project.attempts(path)] == ["stopped"]
    run = finish(slow_project, path)
    resumed = [e for e in run.events() if e["event"] == "attempt"][-1]
    assert resumed["resume_step"] == stop["step"]


@pytest.mark.parametrize("target", ["torchrun", "rank 0", "rank 1"])
def test_sigterm_to_torchrun_or_one_rank_saves_and_stops_all_ranks(slow_project, target):
    experiment = slow_project.start()
    path = wait_for_step(slow_project, 12)
    processes_of(path)[target].send_signal(signal.SIGTERM)
    output, _ = experiment.communicate(timeout=30)
    assert experiment.returncode == 1
    assert "TrainerStopped" in output
    assert survivors(path) == []
    run = TrainingRun(path)
    stop = run.events()[-1]
    assert (stop["event"], stop["reason"]) == ("stop", "SIGTERM")
    assert run.newest_checkpoint().step == stop["step"]
    finish(slow_project, path)


@pytest.mark.parametrize("target", ["experiment", "torchrun", "rank 0", "rank 1"])
def test_kill_9_leaves_no_process_and_the_same_command_goes_on(slow_project, target):
    experiment = slow_project.start()
    path = wait_for_step(slow_project, 12)
    if target == "experiment":
        experiment.kill()
        experiment.communicate()
        wait_until_gone(path)
    else:
        processes_of(path)[target].kill()
        output, _ = experiment.communicate(timeout=40)
        assert experiment.returncode == 1, output
        assert survivors(path) == []
    assert not TrainingRun(path).is_complete
    finish(slow_project, path)


def test_everything_killed_at_once_leaves_no_process_and_goes_on(slow_project):
    experiment = slow_project.start()
    path = wait_for_step(slow_project, 12)
    for process in [psutil.Process(experiment.pid), *survivors(path)]:
        os.kill(process.pid, signal.SIGKILL)
    experiment.communicate()
    wait_until_gone(path)
    finish(slow_project, path)


def test_two_experiments_at_once_train_once(slow_project):
    first = slow_project.start()
    path = wait_for_step(slow_project, 5)
    second = slow_project.start()
    waited, _ = second.communicate(timeout=120)
    first.communicate(timeout=60)
    assert (first.returncode, second.returncode) == (0, 0), waited
    assert f"is being trained by process {first.pid}" in waited
    assert len(slow_project.attempts(path)) == 1
