"""The resumable samplers: PeriFlow's own cases, and one order however often it is entered."""

import itertools

import pytest

from curitorch.external.sdk import PeriFlowError
from curitorch.external.sdk.dataloading.sampler import (
    ResumableRandomSampler,
    ResumableSequentialSampler,
)

BOTH = pytest.mark.parametrize("kind", [ResumableSequentialSampler, ResumableRandomSampler])


def test_the_sequential_one_cuts_global_batches_into_the_ranks_slices():
    shares = [
        list(ResumableSequentialSampler(10, 4, data_parallel_rank=r, data_parallel_size=2))
        for r in (0, 1)
    ]
    assert shares == [[[0, 1], [4, 5], [8]], [[2, 3], [6, 7], [9]]]
    assert list(ResumableSequentialSampler(10, 4)) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert list(ResumableSequentialSampler(10, 4, drop_last=True)) == [[0, 1, 2, 3], [4, 5, 6, 7]]


def test_the_random_one_draws_as_periflows_does():
    """What its 0.1.2 gave for these arguments with torch's generator."""
    import torch

    order = torch.randperm(5, generator=torch.Generator().manual_seed(78)).tolist()
    for rank in (0, 1):
        sampler = ResumableRandomSampler(
            10, 4, seed=77, data_parallel_rank=rank, data_parallel_size=2
        )
        expected = [5 * rank + index for index in order]
        assert list(sampler) == [expected[:2], expected[2:4], expected[4:]]


@BOTH
@pytest.mark.parametrize("steps", [1, 4, 7])
@pytest.mark.parametrize("ranks", [1, 2])
def test_resumed_anywhere_it_goes_on_as_one_that_was_never_interrupted(kind, steps, ranks):
    for rank in range(ranks):
        place = {"data_parallel_rank": rank, "data_parallel_size": ranks}
        through, resumed = kind(10, 4, **place), kind(10, 4, **place)
        epochs = list(itertools.chain(through, through, through, through))
        resumed.set_processed_steps(steps)
        rest = list(itertools.chain(resumed, resumed))
        assert len(rest) > 3
        assert rest == epochs[steps : steps + len(rest)]


@BOTH
def test_each_epoch_has_every_sample_once_over_the_ranks(kind):
    for epoch in (0, 3):
        seen = []
        for rank in range(3):
            sampler = kind(12, 6, data_parallel_rank=rank, data_parallel_size=3)
            sampler.set_processed_steps(2 * epoch)
            seen += [index for share in sampler for index in share]
        assert sorted(seen) == list(range(12))
    assert len(kind(12, 6)) == 12


@BOTH
def test_uneven_shares_are_refused(kind):
    with pytest.raises(PeriFlowError, match="batch_size 5 is not a multiple"):
        kind(10, 5, data_parallel_size=2)
    with pytest.raises(AssertionError, match="samples_per_epoch 11 is not divisible"):
        kind(11, 4, data_parallel_size=2)
    kind(11, 4, drop_last=True, data_parallel_size=2)
