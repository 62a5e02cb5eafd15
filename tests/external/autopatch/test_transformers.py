"""transformers' Trainer in a script: the same prints, weights and logged losses in all ways."""

import re
import sys

import pytest

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("script", "at"),
    [("hugging_face.py", [4, 9]), ("hugging_face.py --workers 2 --accumulate 2", [6])],
)
def test_a_trainer_goes_on_exactly(runner, script, at):
    said = runner.carries(script, at=at)
    assert "Not exact" not in said


def test_two_ranks_go_on_exactly_when_one_of_them_is_told_to_end(runner):
    command = [
        *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"),
        runner.command("hugging_face.py")[1],
    ]
    plain = runner.run(None, command=command, patched=False)
    assert plain.status == 0, plain.err
    stopped = runner.interrupt(None, command=command, after=5)
    assert stopped.status == 1
    assert "Signal 15 (SIGTERM)" in stopped.err
    rest = runner.run(None, command=command)
    assert rest.status == 0, rest.err
    assert stopped.lines + rest.lines == plain.lines, stopped.err + rest.err


def test_an_exception_saves_the_last_clean_state_and_stays_what_it_is(runner):
    plain = runner.run("hugging_face.py", patched=False)
    failed = runner.run("hugging_face.py", FAILS_AT="16", SLOW="0.1")
    assert failed.status == 1
    assert failed.err.rstrip().endswith('KeyError: "the user\'s own"')
    [step] = re.findall(r"Saved the last clean state, of step (\d+)\.", failed.err)
    assert 0 < int(step) < 16
    rest = runner.run("hugging_face.py")
    assert rest.status == 0, rest.err
    assert f"Goes on at step {step}" in rest.err
    assert rest.lines == plain.lines[-len(rest.lines) :]
    assert len(failed.lines) + len(rest.lines) >= len(plain.lines)
