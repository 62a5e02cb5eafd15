"""An epoch begun by some ranks and gone on with by others: each sample once but for the padding."""

import collections
import functools
import itertools
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, Sampler, SequentialSampler
from torch.utils.data.distributed import DistributedSampler

from curitorch.external.autopatch import loader_iterators
from curitorch.external.autopatch.rest_of_epoch import rest_of_epoch


@pytest.fixture(scope="module", autouse=True)
def known_positions():
    """Let the iterators of all loaders know where they stand, as the torch patch does."""
    make = DataLoader.__iter__
    DataLoader.__iter__ = lambda loader: loader_iterators.begin(
        loader, functools.partial(make, loader)
    )
    yield
    DataLoader.__iter__ = make


class Shuffles(Sampler):
    """A user's own, which says nothing of how it draws."""

    def __init__(self, count):
        self.count = count

    def __len__(self):
        return self.count

    def __iter__(self):
        return iter(torch.randperm(self.count).tolist())


class TwoByTwo(BatchSampler):
    """A user's own batches."""


SAMPLERS = {
    "random": lambda data: RandomSampler(data),
    "random of its own": lambda data: RandomSampler(data, generator=torch.Generator()),
    "in order": SequentialSampler,
    "own": lambda data: Shuffles(len(data)),
}


def loaders(kind, samples, ranks, size, *, drop_last=False):
    """Return the loader of each rank, as a script or Lightning makes it."""
    data, found = range(samples), []
    for rank in range(ranks):
        sampler = SAMPLERS.get(kind, SequentialSampler)(data)
        if ranks > 1 or kind == "distributed":
            inner = sampler
            sampler = DistributedSampler(data, ranks, rank, seed=3, drop_last=drop_last)
            if kind == "own":  # as Lightning wraps it
                sampler.dataset = SimpleNamespace(_sampler=inner)
        found.append(DataLoader(data, size, sampler=sampler, drop_last=drop_last))
    return found


def train(its, batches):
    """Return which samples come in so many batches of all ranks, or to their end."""
    seen = []
    for it in its:
        for number, batch in enumerate(it, start=1):
            seen += batch.tolist()
            if number == batches:
                break
    return seen


@settings(deadline=None, max_examples=60)
@given(
    kind=st.sampled_from([*SAMPLERS, "distributed"]),
    samples=st.integers(1, 50),
    size=st.integers(1, 4),
    changes=st.lists(st.tuples(st.integers(1, 4), st.integers(1, 3)), max_size=3),
    last=st.integers(1, 4),
)
def test_each_sample_comes_once_whatever_ranks_go_on(kind, samples, size, changes, last):
    first, *others = [*changes, (last, None)]
    if kind == "own" and first[0] > 1:
        first = (1, first[1])
    torch.manual_seed(1)
    its = [iter(each) for each in loaders(kind, samples, first[0], size)]
    seen, padding = train(its, first[1]), first[0]
    for ranks, batches in others:
        node = loader_iterators.describe(its[0])
        torch.manual_seed(2)
        its = [
            loader_iterators.rebuild(node, each, 0) for each in loaders(kind, samples, ranks, size)
        ]
        seen, padding = seen + train(its, batches), max(padding, ranks)
        if sum(each._num_yielded for each in its) == 0:
            break
    found = collections.Counter(seen)
    assert set(found) == set(range(samples))
    assert len(seen) - samples < padding


def test_the_same_ranks_go_on_with_a_rest_where_they_were():
    [it] = [iter(each) for each in loaders("random", 40, 1, 4)]
    train([it], 3)
    node = loader_iterators.describe(it)
    whole = [loader_iterators.rebuild(node, each, 0) for each in loaders("random", 40, 2, 4)]
    begun = train(whole, 2)
    node = loader_iterators.describe(whole[0])
    rest = [loader_iterators.rebuild(node, each, 0) for each in loaders("random", 40, 2, 4)]
    again = train(rest, None)
    assert again == train(whole, None)
    assert len({*begun, *again}) == 28


def test_a_rest_can_be_cut_into_more_batches_so_that_steps_end_with_the_epoch():
    [it] = [iter(each) for each in loaders("in order", 20, 1, 4)]
    train([it], 2)
    node, [loader] = loader_iterators.describe(it), loaders("in order", 20, 1, 4)
    rest, done = rest_of_epoch(
        {**node, "order": {**node["order"], "ranks": 2}}, loader, 1, lambda n: 6
    )
    assert ([len(each) for each in rest.batches], done) == ([2, 3, 3, 2, 3, 3], 0)
    assert [*itertools.chain(*rest.batches)] == [*range(4, 20)]


def test_what_the_samplers_leave_out_is_left_out():
    its = [iter(each) for each in loaders("distributed", 23, 2, 3, drop_last=True)]
    seen = train(its, 1)
    node = loader_iterators.describe(its[0])
    fresh = loaders("distributed", 23, 4, 3, drop_last=True)
    rest = train([loader_iterators.rebuild(node, each, 0) for each in fresh], None)
    assert (len(rest), len({*seen, *rest})) == (12, 18)


@pytest.mark.parametrize("batches", [TwoByTwo, BatchSampler])
def test_an_order_that_nobody_can_draw_again_is_not_divided(batches):
    data = range(12)
    sampler = Shuffles(12) if batches is TwoByTwo else DistributedSampler(data, 2, 0)
    loader = DataLoader(data, batch_sampler=batches(sampler, 2, drop_last=False))
    it = iter(loader)
    next(it)
    node, [other] = loader_iterators.describe(it), loaders("in order", 12, 1, 2)
    found = rest_of_epoch(node, other, 1)
    assert (found is None) == (batches is TwoByTwo)
