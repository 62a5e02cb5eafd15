from itertools import chain

import pytest
from hypothesis import given
from hypothesis import strategies as st

from curitorch.external.exact.sampling import GlobalBatchSampler, UnevenBatch


def sampler(samples, *, rank=0, world_size=1, position=(0, 0), **options):
    options = {"batch_size": 4, "shuffle": True, "drop_last": False, "seed": 3, **options}
    return GlobalBatchSampler(
        samples, rank=rank, world_size=world_size, position=lambda: position, **options
    )


@given(
    samples=st.integers(1, 60),
    world_size=st.sampled_from([1, 2, 4]),
    per_rank=st.integers(1, 5),
    epoch=st.integers(0, 3),
    shuffle=st.booleans(),
    drop_last=st.booleans(),
)
def test_every_sample_once_per_epoch_in_the_same_global_batches_on_any_number_of_ranks(
    samples, world_size, per_rank, epoch, shuffle, drop_last
):
    options = {
        "batch_size": 4 * per_rank,
        "shuffle": shuffle,
        "drop_last": drop_last,
        "position": (epoch, 0),
    }
    alone = [sorted(batch) for batch in sampler(samples, **options)]
    if not drop_last and 0 < samples % (4 * per_rank) < world_size:
        with pytest.raises(UnevenBatch, match="too few for"):
            sampler(samples, world_size=world_size, **options)
        return
    ranks = [
        list(sampler(samples, rank=rank, world_size=world_size, **options))
        for rank in range(world_size)
    ]
    together = [sorted(chain(*parts)) for parts in zip(*ranks, strict=True)]
    assert together == alone
    assert all(part for rank in ranks for part in rank)
    seen = sorted(chain(*alone))
    assert len(seen) == len(set(seen))
    assert len(seen) == (samples - samples % (4 * per_rank) if drop_last else samples)


@given(samples=st.integers(1, 40), epoch=st.integers(0, 2), data=st.data())
def test_an_epoch_entered_in_the_middle_gives_the_rest_and_keeps_its_length(samples, epoch, data):
    whole = list(sampler(samples, position=(epoch, 0)))
    done = data.draw(st.integers(0, len(whole)))
    rest = sampler(samples, position=(epoch, done))
    assert list(rest) == whole[done:]
    assert len(rest) == len(whole)


def test_epochs_and_seeds_are_ordered_differently():
    orders = {
        (seed, epoch): tuple(chain(*sampler(50, seed=seed, position=(epoch, 0))))
        for seed in (0, 10)
        for epoch in (0, 1)
    }
    assert len(set(orders.values())) == 4


def test_samples_seen_are_counted_by_epochs_and_batches():
    assert sampler(10).samples_before(2, 1) == 24
    assert sampler(10).samples_before(2, 3) == 30
    assert sampler(10, drop_last=True).samples_before(2, 1) == 20


def test_a_batch_that_does_not_divide_names_one_that_does():
    with pytest.raises(UnevenBatch, match=r"size 5 does not divide over 2 .* e\.g\. 6\."):
        sampler(10, batch_size=5, world_size=2)
