"""kill -9 of the demo's process group at random moments, twice, and the same command again."""

import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
import warnings

import pytest
from curifactory.caching import Cacheable

from curitorch.cachers import TrainingRunCacher
from curitorch.external.rundir import TrainingRun
from curitorch.stages.processes import survivors

COMMAND = [sys.executable, "-m", "curitorch.stages.run", "digits", "-p", "quick", "--plain"]
STEPS = 300
MOMENTS = 10


def accuracy(output):
    return float(re.search(r"test/acc (\d\.\d+)", output)[1])


def wait_for_a_moment(seed, project):
    """Half of the moments are while steps are being done, half anywhere from the launch on."""
    chance = random.Random(seed)
    if seed % 2:
        journals = []
        while not any('"step"' in path.read_text() for path in journals):
            journals = project.glob("data/cache/*_train_run/journal.jsonl")
            time.sleep(0.02)
        time.sleep(chance.uniform(0, 3))
    else:
        time.sleep(chance.uniform(1, 12))


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seeds", [(odd, odd - 1) for odd in range(1, MOMENTS, 2)])
def test_killed_at_random_moments_the_same_command_ends_as_if_it_was_not(
    seeds, digits_project, tmp_path
):
    trained, first = digits_project
    project = tmp_path / "digits"
    leave_out = shutil.ignore_patterns("data", "logs", "reports", "__pycache__")
    shutil.copytree(trained.path, project, ignore=leave_out)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    for seed in seeds:
        experiment = subprocess.Popen(
            COMMAND,
            cwd=project,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        wait_for_a_moment(seed, project)
        if experiment.poll() is None:
            os.killpg(experiment.pid, signal.SIGKILL)
        experiment.wait()
        check_what_is_left(project)

    again = subprocess.run(
        COMMAND, cwd=project, env=environment, capture_output=True, text=True, check=False
    )
    assert again.returncode == 0, again.stdout + again.stderr
    assert abs(accuracy(again.stdout) - accuracy(first.output)) <= 0.02
    [path] = project.glob("data/cache/*_train_run")
    run = TrainingRun(path)
    assert run.is_complete
    assert [e["step"] for e in run.events() if e["event"] == "step"] == list(range(1, STEPS + 1))
    assert survivors(path) == []


def check_what_is_left(project):
    for path in project.glob("data/cache/*_train_run"):
        whole = TrainingRun(path).is_complete
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert TrainingRunCacher(path).check() == whole
        assert Cacheable(str(path)).check()  # which is what curifactory alone would go by
