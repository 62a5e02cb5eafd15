"""transformers' Trainer in a script: the same prints, weights and logged losses in all ways."""

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
