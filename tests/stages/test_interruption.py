"""Signals to the experiment, to torchrun and to one rank; kill -9 of each."""

import contextlib
import os
import signal

import psutil
import pytest

from curitorch.external.rundir import TrainingRun
from curitorch.stages.processes import survivors


def processes_of(path):
    """Return torchrun and the ranks of a run, by name."""
    found = {}
    for process in survivors(path):
        environment = process.environ()
        name = f"rank {environment['RANK']}" if "RANK" in environment else "torchrun"
        if name == "torchrun" or name not in found:
            found[name] = process
    return found


SLOW = pytest.mark.slow  # the same path as its neighbour, from another end


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=SLOW)])
def test_a_signal_to_the_experiment_saves_stops_and_is_passed_on(slow_project, number):
    experiment = slow_project.start()
    path = slow_project.wait_for_step(12)
    experiment.send_signal(number)
    output, _ = experiment.communicate(timeout=120)
    assert experiment.returncode == (-15 if number == signal.SIGTERM else 130), output
    assert survivors(path) == []
    run = TrainingRun(path)
    stop = run.events()[-1]
    assert stop["event"] == "stop"
    assert run.newest_checkpoint().step == stop["step"]
    assert not run.is_complete
    assert [a["outcome"] for a in slow_project.attempts(path)] == ["stopped"]
    run = slow_project.finish(path)
    resumed = [e for e in run.events() if e["event"] == "attempt"][-1]
    assert resumed["resume_step"] == stop["step"]


@pytest.mark.slow
@pytest.mark.parametrize("target", ["torchrun", "rank 0", "rank 1"])
def test_sigterm_to_torchrun_or_one_rank_saves_and_stops_all_ranks(slow_project, target):
    experiment = slow_project.start()
    path = slow_project.wait_for_step(12)
    processes_of(path)[target].send_signal(signal.SIGTERM)
    output, _ = experiment.communicate(timeout=120)
    assert experiment.returncode == 1
    assert "TrainerStopped" in output
    assert survivors(path) == []
    run = TrainingRun(path)
    stop = run.events()[-1]
    assert (stop["event"], stop["reason"]) == ("stop", "SIGTERM")
    assert run.newest_checkpoint().step == stop["step"]
    slow_project.finish(path)


@pytest.mark.parametrize(
    "target",
    [
        pytest.param("experiment", marks=SLOW),
        pytest.param("torchrun", marks=SLOW),
        "rank 0",
        pytest.param("rank 1", marks=SLOW),
    ],
)
def test_kill_9_leaves_no_process_and_the_same_command_goes_on(slow_project, target):
    experiment = slow_project.start()
    path = slow_project.wait_for_step(12)
    if target == "experiment":
        experiment.kill()
        experiment.communicate()
        slow_project.wait_until_gone(path)
    else:
        processes_of(path)[target].kill()
        output, _ = experiment.communicate(timeout=120)
        assert experiment.returncode == 1, output
        who = "the launcher" if target == "torchrun" else target
        assert f"{who} on" in output or f"{who} failed first with SIGKILL" in output, output
        assert "SIGKILL" in output
        assert survivors(path) == []
    assert not TrainingRun(path).is_complete
    slow_project.finish(path)


@pytest.mark.slow
def test_everything_killed_at_once_leaves_no_process_and_goes_on(slow_project):
    experiment = slow_project.start()
    path = slow_project.wait_for_step(12)
    for process in [psutil.Process(experiment.pid), *survivors(path)]:
        with contextlib.suppress(ProcessLookupError):  # it does not outlive those before it
            os.kill(process.pid, signal.SIGKILL)
    experiment.communicate()
    slow_project.wait_until_gone(path)
    slow_project.finish(path)


@pytest.mark.slow
def test_of_two_experiments_at_once_the_second_waits_and_goes_on_where_the_first_stopped(
    slow_project,
):
    first = slow_project.start()
    path = slow_project.wait_for_step(5)
    second = slow_project.start()
    waits = f"is being trained by process {first.pid}"
    assert any(waits in line for line in second.stdout)
    assert len(slow_project.attempts(path)) == 1
    first.send_signal(signal.SIGTERM)
    first.communicate(timeout=120)
    output, _ = second.communicate(timeout=120)
    assert (first.returncode, second.returncode) == (-signal.SIGTERM, 0), output
    assert [a["outcome"] for a in slow_project.attempts(path)] == ["stopped", "complete"]
