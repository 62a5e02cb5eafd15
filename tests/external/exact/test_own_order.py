import random

import numpy as np
import pytest
import torch

from curitorch.external.exact.own_order import Bookmarks, OwnOrder
from curitorch.external.exact.plain import NotPlain, on_device, plain
from curitorch.external.exact.randomness import seed_generators, seeded_apart


class Walk:
    """Batches of one index each, with a state."""

    def __init__(self, batches):
        self.batches, self.next = batches, 0

    def __iter__(self):
        while self.next < self.batches:
            self.next += 1
            yield [self.next - 1]
        self.next = 0

    def state_dict(self):
        return {"next": self.next}

    def load_state_dict(self, state):
        self.next = state["next"]


def order(walk, bookmarks, position=(0, 0)):
    return OwnOrder(walk, bookmarks, seed=1, rank=0, position=lambda: position)


def test_the_state_of_each_batch_is_the_one_before_the_next():
    for stop in range(6):
        walk = Walk(6)
        bookmarks = Bookmarks(walk, None)
        ahead = list(order(walk, bookmarks))  # as workers draw
        saved = bookmarks.state_at(0, stop, over=False)
        rest = Walk(6)
        assert list(order(rest, Bookmarks(rest, saved), (0, stop))) == ahead[stop:]


def test_after_the_last_batch_nothing_comes_and_then_the_next_epoch():
    walk = Walk(3)
    bookmarks = Bookmarks(walk, None)
    whole = list(order(walk, bookmarks))
    for over in (False, True):
        rest, place = Walk(3), [(0, 3)]
        kept = Bookmarks(rest, bookmarks.state_at(0, 3, over=over))
        again = OwnOrder(rest, kept, seed=1, rank=0, position=lambda place=place: place[0])
        assert list(again) == []
        place[0] = (1, 0)
        assert list(again) == whole


def test_few_states_are_kept_at_a_time():
    walk = Walk(1000)
    bookmarks = Bookmarks(walk, None)
    for number, _ in enumerate(order(walk, bookmarks)):
        bookmarks.forget_before(number)
        assert len(bookmarks._marks) <= 4
        assert bookmarks.state_at(0, number, over=False)["state"] == {"next": number}


def test_seeding_apart_leaves_the_generators_as_they_were():
    def draw():
        return torch.rand(()).item(), np.random.rand(), random.random()

    seed_generators(1)
    expected = draw(), draw()
    seed_generators(1)
    first = draw()
    with seeded_apart(5):
        apart = draw()
    assert (first, draw()) == expected
    with seeded_apart(5):
        assert draw() == apart


def test_plain_data_is_copied_whole_and_anything_else_named():
    value = {"a": [torch.zeros(2), (1, "b", None)], 3: b"c"}
    copy = plain(value)
    value["a"][0] += 1
    assert copy["a"][0].tolist() == [0, 0]
    assert copy["a"][1:] == [(1, "b", None)]
    assert on_device(copy, torch.device("cpu"))[3] == b"c"
    with pytest.raises(NotPlain, match=r"a numpy\.ndarray"):
        plain({"a": [np.zeros(1)]})
