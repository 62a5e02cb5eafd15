"""Scripts under torchrun: the same ranks go on bitwise, other ranks take each sample once."""

import collections
import signal

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]  # many processes, several times


def samples(folder):
    found = collections.Counter()
    for path in folder.glob("samples-*"):
        found.update(path.read_text().splitlines())
    return found


def test_two_ranks_interrupted_twice_end_bitwise_the_same(runner):
    command, out = runner.under_torchrun("ranks.py", 2), str(runner.folder)
    plain = runner.run(None, command=command, patched=False, OUT=out)
    first = runner.interrupt(None, command=command, after=5, OUT=out)
    second = runner.interrupt(None, command=command, after=11, OUT=out)
    rest = runner.run(None, command=command, OUT=out)
    assert (first.status, second.status, rest.status) == (1, 1, 0), rest.err
    assert "Signal 15 (SIGTERM)" in first.err
    assert (first.out + second.out + rest.out) == plain.out


def test_other_numbers_of_ranks_take_each_sample_of_an_epoch_once(runner):
    out = str(runner.folder)
    for ranks, after in ((2, 5), (1, 5), (2, 6), (4, 1000)):
        done = runner.interrupt(
            None, command=runner.under_torchrun("ranks.py", ranks), after=after, OUT=out
        )
        assert "Not exact" not in done.err
    found = samples(runner.folder)
    assert sum(found.values()) == 3 * 96
    assert set(found.values()) == {1}


def test_three_ranks_end_with_their_launcher_and_add_gradients_up_as_before(runner):
    """DDP lays gradients out anew after its first step: three ranks then add in another order."""
    command = runner.under_torchrun("ranks.py", 3)
    options = {"OUT": str(runner.folder), "DDP": '{"bucket_cap_mb": 0.0005}'}
    plain = runner.run(None, command=command, patched=False, **options)
    ended = runner.interrupt(None, command=command, after=6, SIGNAL_LAUNCHER="1", **options)
    assert ended.status != 0
    assert ended.err.count("ends as asked to") == 3, ended.err
    assert "Not exact" not in ended.err
    assert plain.out.startswith(ended.out)
    every = ",periodic_saving=enabled,periodic_saving_interval=1steps"
    killed = runner.interrupt(
        None, command=command, after=4, by=signal.SIGKILL, config=every, **options
    )
    assert killed.status == 1
    rest = runner.run(None, command=command, config=every, **options)
    assert rest.status == 0, rest.err
    assert rest.lines == plain.lines[-len(rest.lines) :]


def test_a_rank_that_is_told_to_end_takes_the_others_with_it(runner):
    """Not the first one: it asks the others through the launcher's store."""
    command, out = runner.under_torchrun("ranks.py", 2), str(runner.folder)
    plain = runner.run(None, command=command, patched=False, OUT=out)
    stopped = runner.run(None, command=command, OUT=out, TERM_RANK="1")
    assert stopped.status == 1
    assert stopped.err.count("ends as asked to") == 2, stopped.err
    rest = runner.run(None, command=command, OUT=out)
    assert stopped.out + rest.out == plain.out
