"""Lean fits in two processes: bit for bit our Lightning engine's, resumed exactly, stopped as one.

Each test starts two real processes; the comparison is in lean_ranks.py.
"""

from pathlib import Path

import pytest

from tests.external.adapter.torchrun import torchrun

PROGRAM = Path(__file__).with_name("lean_ranks.py")


def run(folder, *names):
    done = torchrun(PROGRAM, folder, *names, seconds=540)
    assert done.returncode == 0, (done.stdout + done.stderr)[-6000:]


@pytest.mark.slow
@pytest.mark.timeout(600)
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
