import pickle

import pytest
import torch
from torch.utils.data import DataLoader, Subset, TensorDataset, default_collate

from curitorch.external.exact import watched_loader
from curitorch.external.exact.own_order import Bookmarks
from curitorch.external.exact.randomness import SeededBatch, derive_seed
from curitorch.external.exact.sampling import GlobalBatchSampler
from curitorch.external.exact.seeded_loader import SeededLoader
from curitorch.external.exact.tensor_batches import TensorBatches
from curitorch.external.exact.watched_loader import WatchedLoader

IMAGES = torch.randn(12, 3, 4, 4)
ROWS = TensorDataset(torch.randn(12, 5), torch.arange(12), torch.rand(12).double(), IMAGES > 0)


class Own(TensorDataset):
    def __getitem__(self, index):
        return self.tensors[0][index] + torch.rand(1)


def seeded(loader):
    batches = GlobalBatchSampler(
        len(loader.dataset), batch_size=5, rank=0, world_size=1, shuffle=True, drop_last=False,
        seed=4, position=lambda: (1, 0),
    )  # fmt: skip
    return SeededLoader(loader, batches), list(batches)


@pytest.mark.parametrize(
    "data",
    [ROWS, Subset(Subset(ROWS, range(1, 12)), [3, 1, 7, 0, 9, 2]), TensorDataset(IMAGES)],
    ids=["rows", "subsets", "one tensor"],
)
def test_rows_taken_at_once_are_what_torch_stacks(data):
    loader, batches = seeded(DataLoader(data))
    assert type(loader.dataset) is TensorBatches
    taken = list(loader)
    assert len(taken) == len(batches)
    for batch, indices in zip(taken, batches, strict=True):
        stacked = default_collate([data[index] for index in indices])
        assert type(batch) is type(stacked)
        for ours, theirs in zip(batch, stacked, strict=True):
            assert (ours.dtype, ours.stride()) == (theirs.dtype, theirs.stride())
            assert torch.equal(ours, theirs)
            assert ours.untyped_storage().data_ptr() != data[0][0].untyped_storage().data_ptr()


@pytest.mark.parametrize(
    "loader",
    [
        DataLoader(Own(torch.ones(12))),
        DataLoader(ROWS, collate_fn=lambda rows: default_collate(rows)),
        DataLoader(TensorDataset(torch.ones(12, 2, requires_grad=True))),
        DataLoader(TensorDataset(IMAGES.to(memory_format=torch.channels_last))),
    ],
    ids=["own samples", "own collation", "gradients", "another layout"],
)
def test_what_torch_would_not_just_stack_is_left_to_it(loader):
    made, _ = seeded(loader)
    assert type(made.dataset) is not TensorBatches
    assert made.collate_fn is loader.collate_fn


def test_a_batch_of_indices_takes_its_seed_to_a_worker():
    batch = pickle.loads(pickle.dumps(SeededBatch([3, 1], 5, "data", 2, 7, 0)))
    assert batch == [3, 1]
    assert batch.seed == derive_seed(5, "data", 2, 7, 0) != derive_seed(5, "data", 2, 70)


@pytest.mark.parametrize(("batches", "times"), [(list, 1), (tuple, 1), (iter, 2)])
def test_nothing_is_seeded_for_loading_what_is_there(batches, times, monkeypatch):
    seeds = []
    monkeypatch.setattr(watched_loader, "seed_generators", seeds.append)
    place = {"seed": 0, "rank": 0, "position": lambda: (0, 0)}
    source = type("Source", (), {"__iter__": lambda self: iter(made)})()
    made = batches([1, 2, 3]) if batches is not iter else (number for number in (1, 2, 3))
    assert list(WatchedLoader(source, Bookmarks(None, None), **place)) == [1, 2, 3]
    ahead = times - 1  # whether there is a fourth is asked as well
    assert len(seeds) == len(set(seeds)) == 3 * times + 2 + ahead
