"""Lean fits in two processes: bit for bit our Lightning engine's, resumed exactly, stopped as one.

Each test starts two real processes; the comparison is in lean_ranks.py.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).with_name("lean_ranks.py")


def run(folder, *names):
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
        str(PROGRAM), str(folder), *names,
    ]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=540)
    assert done.returncode == 0, (done.stdout + done.stderr)[-6000:]


@pytest.mark.slow
@pytest.mark.parametrize(
    "names",
    [
        ("a signal to one rank",),
        ("means", "optimization by hand", "accumulation"),
        ("metrics", "early stopping", "several loaders"),
    ],
    ids=lambda names: "+".join(names).replace(" ", "-"),
)
def test_two_processes_train_the_same_as_lightnings(names, tmp_path):
    run(tmp_path, *names)
