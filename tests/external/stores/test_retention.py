from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from curitorch.external.stores.retention import Retention


@dataclass(frozen=True)
class Measured:
    step: int
    details: dict = field(default_factory=dict)


def measured(losses):
    return [Measured(step, {"metrics": {"loss": loss}}) for step, loss in losses.items()]


def test_the_newest_are_the_highest_steps_in_whatever_order_they_come():
    checkpoints = [Measured(step) for step in (30, 10, 40, 20)]
    assert Retention(newest=2).keep(checkpoints) == {30, 40}


def test_zero_keeps_all():
    assert Retention(newest=0).keep([Measured(1), Measured(2)]) == {1, 2}


def test_nothing_to_keep_is_nothing():
    assert Retention().keep([]) == set()


def test_the_best_are_by_the_metric_and_its_direction():
    checkpoints = measured({1: 0.3, 2: 0.1, 3: 0.2, 4: 0.9})
    assert Retention(newest=1, best=2, monitor="loss").keep(checkpoints) == {2, 3, 4}
    best = Retention(newest=1, best=1, monitor="loss", mode="max")
    assert best.keep([*checkpoints, Measured(5)]) == {4, 5}


def test_of_equally_good_ones_the_newer_is_kept():
    retention = Retention(newest=1, best=1, monitor="loss")
    assert retention.keep(measured({1: 0.5, 2: 0.5, 3: 0.9})) == {2, 3}


@pytest.mark.parametrize("mode", ["min", "max"])
def test_what_was_not_measured_is_not_among_the_best(mode):
    odd = {1: float("nan"), 2: "0.1", 3: None, 4: [0.1], 5: 0.2}
    checkpoints = [*measured(odd), Measured(6, {"metrics": None}), Measured(7)]
    assert Retention(newest=1, best=3, monitor="loss", mode=mode).keep(checkpoints) == {5, 7}


def test_every_nth_stays_for_ever_step_zero_too():
    checkpoints = [Measured(step) for step in range(0, 1000, 50)]
    assert Retention(newest=1, every=300).keep(checkpoints) == {0, 300, 600, 900, 950}


@pytest.mark.parametrize(
    ("rules", "sentence"),
    [
        ({"newest": -1}, "newest=-1"),
        ({"best": -1}, "best=-1"),
        ({"every": 0}, "every=0"),
        ({"best": 1}, "needs a metric"),
    ],
)
def test_rules_that_cannot_be_meant_are_one_sentence(rules, sentence):
    with pytest.raises(ValueError, match=sentence):
        Retention(**rules)


@given(
    st.sets(st.integers(0, 10**9), min_size=1),
    st.integers(0, 5),
    st.integers(0, 5),
    st.none() | st.integers(1, 9),
)
def test_the_newest_is_always_kept_and_nothing_is_made_up(steps, newest, best, every):
    retention = Retention(newest=newest, best=best, monitor="loss", every=every)
    kept = retention.keep(measured({step: step % 7 for step in steps}))
    assert max(steps) in kept
    assert kept <= steps
    assert len(kept) >= min(newest, len(steps))
