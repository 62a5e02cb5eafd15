"""Where the randomness of a step comes from: its place, wherever the epoch was entered."""

import random
from itertools import islice

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from curitorch.external.exact.own_order import Bookmarks
from curitorch.external.exact.randomness import derive_seed, derive_seeds, seed_generators
from curitorch.external.exact.sampling import GlobalBatchSampler
from curitorch.external.exact.seeded_loader import SeededLoader
from curitorch.external.exact.watched_loader import WatchedLoader

BATCHES = 80


def drawn():
    return torch.rand(()).item(), np.random.rand(), random.random(), random.gauss()


def test_seeds_of_many_batches_are_those_of_each():
    seeds = list(islice(derive_seeds(3, "step", 2, 5, 1), BATCHES))
    assert seeds == [derive_seed(3, "step", 2, number, 1) for number in range(5, 5 + BATCHES)]
    assert len({*seeds}) == BATCHES


def sampled(position):
    batches = GlobalBatchSampler(
        BATCHES, batch_size=1, rank=0, world_size=1, shuffle=True, drop_last=False, seed=4,
        position=position,
    )  # fmt: skip
    return SeededLoader(DataLoader(range(BATCHES)), batches)


def watched(position):
    place = {"seed": 4, "rank": 0, "position": position}
    return WatchedLoader(list(range(BATCHES)), Bookmarks(None, None), **place)


@pytest.mark.parametrize("loader", [sampled, watched])
@pytest.mark.parametrize("done", [0, 1, 37])
def test_what_a_step_draws_depends_on_its_place_alone(loader, done):
    whole = [drawn() for _ in loader(lambda: (1, 0))]
    rest = [(drawn(), drawn())[0] for _ in loader(lambda: (1, done))]
    assert rest == whole[done:]
    for number, each in enumerate(whole):
        seed_generators(derive_seed(4, "step", 1, number, 0))
        assert drawn() == each
