"""A Lightning Trainer in a script: the same prints, weights and logged values in all ways."""

import sys

import pytest

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("script", "at"),
    [
        ("with_lightning.py", [5, 11, 19]),
        ("with_lightning.py --workers 2", [5, 14]),
        ("with_lightning.py --accumulate 2", [6, 13]),
    ],
)
def test_a_trainer_goes_on_exactly(runner, script, at):
    said = runner.carries(script, at=at, by_status=143)
    assert "Not exact" not in said


def test_two_ranks_go_on_exactly_when_one_of_them_is_told_to_end(runner):
    command = [
        *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"),
        *(runner.command("with_lightning.py")[1], "--devices", "2"),
    ]
    plain = runner.run(None, command=command, patched=False)
    assert plain.status == 0, plain.err
    stopped = runner.interrupt(None, command=command, after=9)
    assert stopped.status == 1
    rest = runner.run(None, command=command)
    assert rest.status == 0, rest.err
    assert stopped.lines + rest.lines == plain.lines, stopped.err + rest.err
    assert "Not exact" not in stopped.err + rest.err
