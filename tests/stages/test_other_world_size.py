"""Interrupted on two processes, finished on one: the same samples, the same model."""

import signal

import pytest
import torch

from curitorch.external.rundir import TrainingRun


def weights(run):
    return torch.load(run.model_path, weights_only=True)["state_dict"]


@pytest.mark.slow
def test_a_run_goes_on_with_another_number_of_processes(slow_project):
    two = ("processes_per_node=2", "processes_per_node=1")
    slow_project.change("params/one.py", "epochs=40", "epochs=12")
    experiment = slow_project.start()
    path = slow_project.wait_for_step(12)
    experiment.send_signal(signal.SIGTERM)
    experiment.communicate(timeout=120)
    stopped = TrainingRun(path).newest_checkpoint()
    assert stopped.world_size == 2
    slow_project.change("params/one.py", *two)
    run = slow_project.finish(path, steps=60)
    assert [a["world_size"] for a in slow_project.attempts(path)] == [2, 1]
    assert run.checkpoints()[-1].samples == 12 * 40
    after_two_then_one = weights(run)

    assert slow_project.run("--overwrite").returncode == 0
    alone = weights(run)
    for name, value in alone.items():  # sums of gradients differ in their last bits
        torch.testing.assert_close(after_two_then_one[name], value, rtol=1e-4, atol=1e-6)
