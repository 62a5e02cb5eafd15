"""kill -9 of the demo's whole process group at random moments, and the same command again."""

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


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(MOMENTS))
def test_killed_at_a_random_moment_the_same_command_ends_as_if_it_was_not(
    seed, digits_project, tmp_path
):
    trained, first = digits_project
    project = tmp_path / "digits"
    leave_out = shutil.ignore_patterns("data", "logs", "reports", "__pycache__")
    shutil.copytree(trained.path, project, ignore=leave_out)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    experiment = subprocess.Popen(
        COMMAND,
        cwd=project,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    # Half of the moments anywhere from the launch on, half while steps are being done.
    chance = random.Random(seed)
    journals = project.glob("data/cache/*_train_run/journal.jsonl")
    if seed % 2:
        while not any('"step"' in path.read_text() for path in journals):
            journals = project.glob("data/cache/*_train_run/journal.jsonl")
            time.sleep(0.02)
        time.sleep(chance.uniform(0, 3))
    else:
        time.sleep(chance.uniform(1, 12))
    if experiment.poll() is None:
        os.killpg(experiment.pid, signal.SIGKILL)
    experiment.wait()

    for path in project.glob("data/cache/*_train_run"):
        whole = TrainingRun(path).is_complete
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert TrainingRunCacher(path).check() == whole
        assert Cacheable(str(path)).check()  # which is what curifactory alone would go by

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
