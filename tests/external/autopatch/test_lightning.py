"""A Lightning Trainer in a script: the same prints, weights and logged values in all ways."""

import collections
import json

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]  # many processes, several times


@pytest.mark.parametrize(
    ("script", "at"),
    [
        ("with_lightning.py", [5, 11, 19]),
        ("with_lightning.py", [2, 8, 17]),  # as an epoch begins, in its last step, at its end
        ("with_lightning.py", [9, 10, 18]),
        ("with_lightning.py --workers 2", [5, 14]),
        ("with_lightning.py --accumulate 2", [6, 13]),
    ],
)
def test_a_trainer_goes_on_exactly(runner, script, at):
    said = runner.carries(script, at=at, by_status=143)
    assert "Not exact" not in said


@pytest.mark.parametrize(("every", "fails_at"), [(1, 3), (1, 6), (2, 3), (2, 4), (3, 2), (3, 3)])
def test_an_error_goes_back_to_the_step_that_was_under_way(runner, every, fails_at):
    """Also to the first of an epoch, and in the last of several batches of a step."""
    words = f"with_lightning.py --accumulate {every}"
    plain = runner.run(words, patched=False)
    failed = runner.run(f"{words} --fail-at {fails_at}")
    assert failed.status == 1
    assert 'KeyError: "the user\'s own"' in failed.err
    rest = runner.run(words)
    assert f"Goes on at step {fails_at}" in rest.err
    assert rest.lines == plain.lines[-len(rest.lines) :], failed.err + rest.err
    assert len(failed.lines) + len(rest.lines) - len(plain.lines) in range(every + 1)


def test_checkpoints_of_a_newer_curitorch_are_refused_before_a_step(runner):
    runner.interrupt("with_lightning.py", after=5)
    [path] = runner.store.rglob("step-*.json")
    path.write_text(json.dumps({**json.loads(path.read_text()), "schema": 3}))
    refused = runner.run("with_lightning.py")
    assert (refused.status, refused.lines) == (1, ["building"])
    assert "is for another curitorch" in refused.err.splitlines()[-1]


def test_a_stop_in_a_validation_begins_that_one_again(runner):
    words = "with_lightning.py"
    plain = runner.run(words, patched=False, SAY_VALIDATION="1")
    stopped = runner.interrupt(words, after=9, SAY_VALIDATION="1")
    assert (stopped.status, stopped.lines) == (143, plain.lines[:9])
    assert stopped.lines[-1].startswith("validates 0")
    rest = runner.run(words, SAY_VALIDATION="1")
    assert rest.lines == plain.lines[8:], stopped.err + rest.err


def launch(runner, ranks, *words):
    return runner.under_torchrun("with_lightning.py", ranks, f"--devices={ranks}", *words)


def samples(folder):
    """Return how often each sample came, by epochs."""
    found = collections.defaultdict(collections.Counter)
    for path in folder.glob("samples-*"):
        for line in path.read_text().splitlines():
            epoch, sample = line.split()
            found[int(epoch)][int(sample)] += 1
    return found


def test_two_ranks_go_on_exactly_when_one_of_them_is_told_to_end(runner):
    command = launch(runner, 2, "--rows=96")
    plain = runner.run(None, command=command, patched=False)
    assert plain.status == 0, plain.err
    stopped = runner.interrupt(None, command=command, after=9)
    assert stopped.status == 1
    rest = runner.run(None, command=command)
    assert rest.status == 0, rest.err
    assert stopped.lines + rest.lines == plain.lines, stopped.err + rest.err
    assert "Not exact" not in stopped.err + rest.err


@pytest.mark.parametrize(
    ("plan", "words"),
    [
        ([(1, 5), (2, 3), (3, 6), (1, None)], ["--rows=101"]),
        ([(2, 5), (1, 3), (2, None)], ["--rows=101", "--workers=2", "--accumulate=2"]),
        ([(1, 5), (2, None)], ["--rows=60", "--own-order"]),
    ],
)
def test_other_numbers_of_ranks_take_each_sample_of_an_epoch_once(runner, plan, words):
    """But for one that is repeated where ranks cannot divide it evenly."""
    for ranks, after in plan:
        options = {"command": launch(runner, ranks, *words), "OUT": str(runner.folder)}
        done = runner.run(None, **options) if after is None else None
        done = done or runner.interrupt(None, after=after, **options)
        assert done.status == (0 if after is None else 1), done.err
        assert "Not exact" not in done.err
    found = samples(runner.folder)
    rows = int(words[0].removeprefix("--rows="))
    assert [len(each) for each in found.values()] == [rows] * 3
    assert all(each.total() - rows < max(ranks for ranks, _ in plan) for each in found.values())


def test_an_order_that_cannot_be_divided_anew_is_said(runner):
    words = ["--rows=60", "--own-order"]
    runner.interrupt(None, command=launch(runner, 2, *words), after=4)
    rest = runner.run(None, command=launch(runner, 1, *words))
    assert rest.status == 0, rest.err
    assert "the order of its samples cannot be divided anew: the epoch under way begins" in rest.err
