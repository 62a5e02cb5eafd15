"""transformers' Trainer in a script: the same prints, weights and logged losses in all ways."""

import collections
import json
import re

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]  # many processes, several times


@pytest.mark.parametrize(
    ("script", "at"),
    [("hugging_face.py", [4, 9]), ("hugging_face.py --workers 2 --accumulate 2", [6])],
)
def test_a_trainer_goes_on_exactly(runner, script, at):
    said = runner.carries(script, at=at)
    assert "Not exact" not in said


def options(**given):
    return f"--options={json.dumps(given)}"


@pytest.mark.parametrize(
    ("ranks", "words"),
    [(2, []), (3, [options(ddp_find_unused_parameters=False, ddp_bucket_cap_mb=0.001)])],
)
def test_ranks_go_on_exactly_when_one_of_them_is_told_to_end(runner, ranks, words):
    command = runner.under_torchrun("hugging_face.py", ranks, *words)
    plain = runner.run(None, command=command, patched=False)
    assert plain.status == 0, plain.err
    stopped = runner.interrupt(None, command=command, after=2 + ranks)
    assert stopped.status == 1
    assert "Signal 15 (SIGTERM)" in stopped.err
    rest = runner.run(None, command=command)
    assert rest.status == 0, rest.err
    assert stopped.lines + rest.lines == plain.lines, stopped.err + rest.err
    assert "Not exact" not in stopped.err + rest.err


@pytest.mark.parametrize(
    ("plan", "words"),
    [
        ([(2, 6), (1, 6), (3, 5), (2, None)], ["--rows=101"]),
        ([(2, 5), (1, None)], ["--rows=101", "--workers=2", "--accumulate=3"]),
        ([(1, 6), (2, None)], ["--rows=101", "--accumulate=2", options(max_steps=30)]),
    ],
)
def test_other_numbers_of_ranks_take_each_sample_of_an_epoch_once(runner, plan, words):
    """But for some that accelerate repeats so that all ranks have whole batches, of four."""
    for ranks, after in plan:
        given = {
            "command": runner.under_torchrun("hugging_face.py", ranks, *words),
            "OUT": str(runner.folder),
        }
        done = runner.run(None, **given) if after is None else None
        done = done or runner.interrupt(None, after=after, **given)
        assert done.status == (0 if after is None else 1), done.err
        assert "Not exact" not in done.err
    found = collections.defaultdict(collections.Counter)
    for path in runner.folder.glob("samples-*"):
        for line in path.read_text().splitlines():
            epoch, sample = line.split()
            found[int(epoch)][int(sample)] += 1
    assert [len(found[epoch]) for epoch in (0, 1)] == [101, 101]
    assert all(each.total() - 101 < 4 * max(ranks for ranks, _ in plan) for each in found.values())
    if "max_steps" in words[-1]:
        assert max(int(line.split()[0]) for line in done.lines if line[0].isdigit()) == 30
    else:
        assert len(found[2]) == 101


@pytest.mark.parametrize("rank", [{"FAILS": "1"}, {"FAILS": "0"}, {}])
def test_ranks_of_which_one_fails_or_all_save_the_last_clean_state(runner, rank):
    command = runner.under_torchrun("hugging_face.py", 2, "--rows=160")
    held = {"site": runner.holds_often, "SLOW": "0.1"}
    failed = runner.run(None, command=command, FAILS_AT="17", **held, **rank)
    assert failed.status == 1
    assert 'KeyError: "the user\'s own"' in failed.err
    [step] = re.findall(r"Saved the last clean state, of step (\d+)\.", failed.err)
    assert 0 < int(step) < 17
    rest = runner.run(None, command=command)
    assert rest.status == 0, rest.err
    assert f"Goes on at step {step}" in rest.err
    plain = runner.run(None, command=command, patched=False)
    assert rest.lines == plain.lines[-len(rest.lines) :]
    assert len(failed.lines) + len(rest.lines) >= len(plain.lines)


def test_an_exception_saves_the_last_clean_state_and_stays_what_it_is(runner):
    plain = runner.run("hugging_face.py", patched=False)
    held = {"site": runner.holds_often, "SLOW": "0.1"}
    failed = runner.run("hugging_face.py", FAILS_AT="16", **held)
    assert failed.status == 1
    assert failed.err.rstrip().endswith('KeyError: "the user\'s own"')
    [step] = re.findall(r"Saved the last clean state, of step (\d+)\.", failed.err)
    assert 0 < int(step) < 16
    rest = runner.run("hugging_face.py")
    assert rest.status == 0, rest.err
    assert f"Goes on at step {step}" in rest.err
    assert rest.lines == plain.lines[-len(rest.lines) :]
    assert len(failed.lines) + len(rest.lines) >= len(plain.lines)
