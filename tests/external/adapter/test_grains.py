"""Grains: each sample of an epoch once, in the same grains whatever the processes."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader, TensorDataset

from curitorch.external.adapter.grains import GrainLoader, Grains, GrainSampler
from curitorch.external.exact.sampling import GlobalBatchSampler, UnevenBatch

OPTIONS = {"shuffle": True, "seed": 3, "position": lambda: (0, 0)}


def everything(grains, ranks, **options):
    """Return {(global batch, grain): (samples, seed)} as all ranks together have it."""
    found = {}
    for rank in range(ranks):
        own = Grains(**{**vars(grains), "rank": rank, "world_size": ranks})
        sampler = GrainSampler(own, **{**OPTIONS, **options})
        done = sampler.position()[1]
        for index, batch in enumerate(sampler, start=done):
            place = own.at(index)
            assert len(batch) == place.samples
            assert (place.batch, place.number) not in found
            found[place.batch, place.number] = ([*batch], batch.seed)
    return found


@given(
    of=st.sampled_from([1, 2, 4, 8]),
    grain=st.integers(1, 5),
    whole=st.integers(1, 4),
    rest=st.integers(0, 39),
    drop_last=st.booleans(),
    epoch=st.integers(0, 5),
)
def test_grains_and_their_seeds_do_not_depend_on_the_processes(
    of, grain, whole, rest, drop_last, epoch
):
    size = of * grain
    rest = rest % size if rest % size >= of else 0
    grains = Grains(whole * size + rest, size, grain, drop_last=drop_last)
    alone = everything(grains, 1, position=lambda: (epoch, 0))
    for ranks in (2, 4, 8):
        if ranks <= of:
            assert everything(grains, ranks, position=lambda: (epoch, 0)) == alone
    plain = GlobalBatchSampler(
        grains.samples,
        **{**OPTIONS, "position": lambda: (epoch, 0)},
        **{"batch_size": size, "rank": 0, "world_size": 1, "drop_last": drop_last},
    )
    for batch, expected in enumerate(plain):
        numbers = range(of)
        assert [i for number in numbers for i in alone[batch, number][0]] == expected
    weights = [grains.at(index).weight for index in range(len(grains))]
    assert sum(weights) == pytest.approx(grains.batches)


def test_an_epoch_is_entered_at_any_global_batch():
    grains = Grains(22, 8, 2)
    whole = everything(grains, 1)
    rest = everything(grains, 2, position=lambda: (0, 2))  # of its own two grains a batch
    assert rest == {place: found for place, found in whole.items() if place[0] >= 1}


def test_a_last_smaller_batch_is_spread_over_as_many_grains():
    grains = Grains(22, 8, 2)
    last = [grains.at(index) for index in range(8, 12)]
    assert [(g.start, g.samples, g.weight) for g in last] == [
        *((16, 2, 2 / 6), (18, 2, 2 / 6), (20, 1, 1 / 6), (21, 1, 1 / 6)),
    ]
    assert [g.is_last for g in last] == [False, False, False, True]
    assert [g.is_first for g in last] == [True, False, False, False]


@pytest.mark.parametrize(
    ("numbers", "said"),
    [
        ({"batch_size": 12, "grain": 2}, "1, 2, 4, 8 … grains. Use a grain of 12, 6, 3."),
        ({"batch_size": 12, "grain": 5}, "grains of 5"),
        ({"batch_size": 12, "grain": 0}, "grains of 0"),
        ({"batch_size": 4, "grain": 8}, "grains of 8"),
        ({"batch_size": 12, "grain": 3, "world_size": 3}, "3 processes"),
        ({"batch_size": 12, "grain": 3, "world_size": 8}, "at most 4"),
        ({"batch_size": 12, "grain": 3, "samples": 26}, "leave a last one of 2, too few"),
    ],
)
def test_what_no_tree_can_be_made_of_is_refused_with_numbers_that_would_do(numbers, said):
    with pytest.raises(UnevenBatch, match=said):
        Grains(**{"samples": 24, **numbers})


@pytest.mark.parametrize("workers", [0, 1])
def test_random_augmentation_is_of_the_grain_whoever_loads_it(workers):
    class Noisy(TensorDataset):
        def __getitem__(self, index):
            return super().__getitem__(index)[0] + torch.rand(())

    def loaded(rank, ranks):
        grains = Grains(24, 8, 2, rank=rank, world_size=ranks)
        loader = DataLoader(Noisy(torch.arange(24.0)), num_workers=workers, batch_size=8)
        found = {}
        for index, batch in enumerate(GrainLoader(loader, GrainSampler(grains, **OPTIONS))):
            place = grains.at(index)
            found[place.batch, place.number] = [*batch.tolist(), float(torch.rand(()))]
        return found

    alone = loaded(0, 1)
    assert len(alone) == 12
    assert {**loaded(0, 2), **loaded(1, 2)} == alone
