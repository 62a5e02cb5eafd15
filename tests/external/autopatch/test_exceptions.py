"""An exception: its traceback and status stay, and the last clean state is saved."""

import signal

import pytest

from curitorch.external.stores import LocalStore


def saved_steps(runner):
    return [each.details["steps"] for each in LocalStore(runner.store).list()]


def test_an_exception_saves_the_last_clean_state_which_goes_on_exactly(runner):
    plain = runner.run("fails.py", patched=False)
    failed = runner.run("fails.py", site=runner.holds_often, FAILS_AT="25", SLOW="0.05")
    assert failed.status == 1
    assert failed.err.splitlines()[-1] == 'KeyError: "the user\'s own"'
    [steps] = saved_steps(runner)
    assert 0 < steps <= 25  # a copy is taken now and then
    assert f"Saved the last clean state, of step {steps}" in failed.err
    rest = runner.run("fails.py")
    assert failed.lines[:steps] + rest.lines == plain.lines


@pytest.mark.slow
def test_without_atexit_saving_neither_an_exception_nor_sigterm_saves(runner):
    off = ",atexit_saving=disabled"
    failed = runner.run("fails.py", config=off, FAILS_AT="6")
    assert (failed.status, saved_steps(runner)) == (1, [])
    stopped = runner.interrupt("fails.py", after=6, config=off)
    assert (stopped.status, saved_steps(runner)) == (-signal.SIGTERM, [])


@pytest.mark.slow
def test_ctrl_c_saves_as_an_exception_does(runner):
    held = {"site": runner.holds_often, "SLOW": "0.05"}
    done = runner.interrupt("fails.py", after=25, by=signal.SIGINT, **held)
    assert done.status == -signal.SIGINT
    assert "KeyboardInterrupt" in done.err
    assert saved_steps(runner)
