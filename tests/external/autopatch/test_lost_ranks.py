"""Ranks whose neighbours, or whose launcher, were killed: they end, and say why."""

import os
import signal
import time

import pytest

from tests.processes import has_ended

pytestmark = pytest.mark.slow
GRACE = ",grace_seconds=2"


def start(runner, **options):
    """Return torchrun's process with two ranks, and the ranks' process ids."""
    command = runner.under_torchrun("waits_for_ranks.py", 2)
    launcher = runner.start(None, command=command, config=GRACE, **options)
    pids = {}
    for line in launcher.stdout:
        _, rank, pid = line.split()
        pids[int(rank)] = int(pid)
        if len(pids) == 2:
            return launcher, pids
    pytest.fail(launcher.communicate()[1])


def wait_until_gone(pid, seconds=100):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if has_ended(pid):
            return
        time.sleep(0.1)
    os.kill(pid, signal.SIGKILL)
    pytest.fail(f"process {pid} was still there after {seconds} s")


def test_a_rank_ends_though_another_never_answers(runner):
    launcher, pids = start(runner, SILENT="1")
    assert launcher.stdout.readline() == "silent\n"  # rank 0 has to wait for it in a collective
    os.kill(pids[0], signal.SIGTERM)
    _, err = launcher.communicate()
    assert "In 2 s after this process was to end no iteration began" in err
    assert "Signal 15 (SIGTERM)" in err
    assert launcher.returncode == 1


def test_a_rank_ends_when_another_is_killed(runner):
    launcher, pids = start(runner)
    os.kill(pids[1], signal.SIGKILL)
    _, err = launcher.communicate()
    assert "Signal 9 (SIGKILL)" in err
    assert launcher.returncode == 1
    wait_until_gone(pids[0])


def test_ranks_whose_launcher_is_killed_end_and_say_so(runner):
    launcher, pids = start(runner)
    launcher.kill()
    _, err = launcher.communicate()  # until both have closed it
    assert "The launcher of these ranks has ended without them" in err
    for pid in pids.values():
        wait_until_gone(pid)
