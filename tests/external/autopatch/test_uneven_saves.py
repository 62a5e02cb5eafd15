"""Two ranks of which one had saved, and the other had not, when all were killed."""

import pytest

from curitorch.external.stores import LocalStore

pytestmark = pytest.mark.timeout(900)


@pytest.fixture
def ranks(runner):
    """What two ranks print, and a function that runs or interrupts them."""
    command = runner.under_torchrun("ranks.py", 2)
    options = {"command": command, "OUT": str(runner.folder)}
    plain = runner.run(None, patched=False, **options)
    assert plain.status == 0, plain.err
    return plain.out, {**options, "config": runner.saves_every_step}


def keep(runner, rank, steps):
    """Leave a rank so many of its checkpoints, the oldest ones, as of its first saves."""
    with LocalStore(runner.folder / "store" / f"rank-{rank}") as store:
        for each in store.list()[steps:]:
            store.delete(each.step)
        assert len(store.list()) == steps


@pytest.mark.parametrize("without", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_a_first_save_that_not_all_finished_is_left_out(runner, ranks, without):
    plain, options = ranks
    runner.interrupt(None, after=4, **options)
    keep(runner, without, 0)
    keep(runner, 1 - without, 1)
    rest = runner.run(None, **options)
    assert rest.status == 0, rest.err
    assert rest.err.count("The first save was not finished on all ranks") == 1
    assert rest.out == plain


@pytest.mark.slow
def test_a_rank_that_lost_its_saves_stops_all_before_a_step(runner, ranks):
    _, options = ranks
    runner.interrupt(None, after=4, **options)
    keep(runner, 0, 0)
    done = runner.run(None, **options)
    assert done.status == 1
    assert done.out == ""
    assert "in which ranks [0] have no checkpoint, but others have" in done.err


@pytest.mark.slow
def test_a_script_is_complete_when_all_ranks_are(runner, ranks):
    plain, options = ranks
    assert runner.run(None, **options).out == plain
    keep(runner, 0, 1)  # it was killed while it said so
    rest = runner.run(None, **options)
    assert rest.status == 0, rest.err
    assert "complete" not in rest.err
    assert rest.out
    assert plain.endswith(rest.out)
    again = runner.run(None, **options)
    assert (again.status, again.out) == (0, "")
    assert "is complete" in again.err
