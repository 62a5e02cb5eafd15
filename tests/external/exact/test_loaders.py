from itertools import chain
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.utilities import CombinedLoader
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    Sampler,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
)

from curitorch.external.data_modules import LoaderData, ModelData
from curitorch.external.exact.evaluation_loaders import evaluation_loaders
from curitorch.external.exact.exact_resume import ExactResume
from curitorch.external.exact.loaders import put_in_order
from curitorch.external.exact.sampling import GlobalBatchSampler, UnevenBatch
from curitorch.external.exact.train_loader import train_loader
from curitorch.external.refused import Refused

DATA = TensorDataset(torch.arange(20))


def trainer(rank=0, world_size=1, done=0):
    """What the loaders ask of a Trainer, in its first epoch."""
    counters = SimpleNamespace(ready=done, completed=done, processed=0, started=1 if done else 0)
    progress = SimpleNamespace(current=counters)
    epoch_loop = SimpleNamespace(batch_progress=progress)
    return SimpleNamespace(
        global_rank=rank,
        world_size=world_size,
        overfit_batches=0,
        fit_loop=SimpleNamespace(epoch_loop=epoch_loop, epoch_progress=progress),
    )


def training(loader, *, batch_size=4, **place):
    place = trainer(**place)
    return train_loader(loader, place, ExactResume(), batch_size=batch_size, seed=0)


def validation(loaders, *, batch_size=4, **place):
    place = trainer(**place)
    return evaluation_loaders(loaders, place, batch_size=batch_size, seed=0, role="val")


def samples(loader):
    return torch.cat([batch[0] for batch in loader]).tolist()


def collate_twice(rows):
    return torch.utils.data.default_collate(rows * 2)


class Own(Sampler):
    """An order of samples that nobody knows."""

    def __init__(self, samples=20):
        self.samples = samples

    def __len__(self):
        return self.samples

    def __iter__(self):
        return iter(range(self.samples - 1, -1, -1))


class Chunks:
    """A loader that is no DataLoader."""

    def __iter__(self):
        return iter([[torch.zeros(1)]])


class Stream(IterableDataset):
    def __iter__(self):
        return iter(range(3))


def test_a_plain_loader_is_divided_and_keeps_what_the_user_chose():
    loader = DataLoader(DATA, 16, shuffle=True, collate_fn=collate_twice, num_workers=0)
    parts = [training(loader, rank=r, world_size=2) for r in (0, 1)]
    assert all(isinstance(part.batch_sampler, GlobalBatchSampler) for part in parts)
    assert all(part.collate_fn is collate_twice for part in parts)
    assert [len(part) for part in parts] == [5, 5]
    assert sorted(samples(parts[0]) + samples(parts[1])) == sorted([*range(20), *range(20)])


def test_the_global_batch_is_the_loaders_own_where_none_is_given():
    loader = training(DataLoader(DATA, 10), batch_size=None, world_size=2)
    assert [len(batch[0]) for batch in loader] == [5, 5]


def test_evaluation_data_is_divided_when_that_is_exact_and_whole_otherwise():
    for size, expected in ((20, 10), (19, 19)):
        loader = DataLoader(TensorDataset(torch.arange(size)), 4)
        assert len(samples(validation(loader, world_size=2))) == expected


def test_several_evaluation_loaders_are_divided_each_and_others_let_be():
    loader, stream = DataLoader(DATA, 4), DataLoader(Stream(), 1)
    assert [len(samples(one)) for one in validation([loader, loader], world_size=2)] == [10, 10]
    named = validation({"plain": loader, "stream": stream}, world_size=2)
    assert len(samples(named["plain"])) == 10
    assert named["stream"] is stream


@pytest.mark.parametrize(
    "sampler",
    [
        WeightedRandomSampler([1.0] * 20, 12),
        RandomSampler(DATA, replacement=True),
        RandomSampler(DATA, num_samples=12),
        SubsetRandomSampler(range(12)),
        SubsetRandomSampler(range(12), generator=torch.Generator()),
    ],
)
def test_samplers_of_torchs_are_drawn_once_and_divided(sampler):
    loader = DataLoader(DATA, 4, sampler=sampler)
    alone = [batch[0].tolist() for batch in training(loader)]
    parts = [training(loader, rank=rank, world_size=2) for rank in (0, 1)]
    together = [[*one[0].tolist(), *other[0].tolist()] for one, other in zip(*parts, strict=True)]
    assert [sorted(batch) for batch in together] == [sorted(batch) for batch in alone]
    assert len(list(chain(*alone))) == len(sampler)
    assert [batch[0].tolist() for batch in training(loader, done=1)] == alone[1:]
    assert training(DataLoader(DATA, batch_sampler=BatchSampler(sampler, 4, True))).batch_sampler


@pytest.mark.parametrize(
    ("loader", "reason"),
    [
        (DataLoader(DATA, 4, sampler=Own()), r"a sampler of its own \(Own\)"),
        (DataLoader(DATA, batch_sampler=BatchSampler(Own(), 4, False)), r"of its own \(Own\)"),
        (DataLoader(DATA, batch_sampler=[[0, 1], [2]]), "a batch sampler of its own"),
        (DataLoader(DATA, None), "no automatic batching"),
        (Chunks(), "a Chunks instead of a DataLoader"),
        ([DataLoader(DATA, 4), Chunks()], "a Chunks instead of a DataLoader"),
    ],
)
def test_an_order_that_is_not_ours_is_said_and_refused_on_several_processes(loader, reason):
    with pytest.warns(UserWarning, match=reason):
        training(loader)
    with pytest.raises(UnevenBatch, match=reason):
        training(loader, world_size=2)


def test_a_sampler_without_a_state_leaves_out_what_was_done():
    loader = DataLoader(DATA, 4, sampler=Own())
    with pytest.warns(UserWarning, match="exact only if the same comes again"):
        whole, rest = training(loader), training(loader, done=3)
    assert samples(whole) == list(range(19, -1, -1))
    assert samples(rest) == list(range(7, -1, -1))


def test_a_state_that_a_checkpoint_cannot_hold_is_named():
    class Odd(Own):
        def state_dict(self):
            return {"order": object()}

        def load_state_dict(self, state):
            raise AssertionError

    with (
        pytest.warns(UserWarning, match=r"The state_dict of Odd has a builtins\.object"),
        pytest.warns(UserWarning, match="without state_dict"),
    ):
        training(DataLoader(DATA, 4, sampler=Odd()))


def test_data_that_divides_itself_keeps_its_order():
    own = DistributedSampler(DATA, num_replicas=2, rank=0)
    with pytest.warns(UserWarning, match="an IterableDataset without"):
        stream = training(DataLoader(Stream(), 1), world_size=2)
    assert [int(batch) for batch in stream] == [0, 1, 2]
    own.set_epoch(0)
    assert samples(training(DataLoader(DATA, 4, sampler=own), world_size=2)) == list(own)


def test_of_several_loaders_each_is_divided_and_entered():
    loaders = {"a": DataLoader(DATA, 4), "b": DataLoader(TensorDataset(torch.arange(8)), 4)}
    whole = [batch["b"][0].tolist() for batch, _, _ in training(loaders)]
    assert whole == [[0, 1, 2, 3], [4, 5, 6, 7]] * 2 + [[0, 1, 2, 3]]
    batch, _, _ = next(iter(training(loaders, done=3)))
    assert [batch[name][0].tolist() for name in "ab"] == [[12, 13, 14, 15], [4, 5, 6, 7]]
    both = training(CombinedLoader(loaders, "min_size"), world_size=2, rank=1)
    assert [b["b"][0].tolist() for b, _, _ in both] == [[1, 3], [5, 7]]


def test_a_data_modules_own_hooks_and_missing_loaders_stay():
    class Data(LightningDataModule):
        def train_dataloader(self):
            return DataLoader(DATA, 4)

    data = Data()
    for _ in range(2):  # the second Trainer has its own order over the user's loader
        put_in_order(data, Trainer(logger=False, barebones=True), batch_size=4, seed=0)
    assert samples(data.train_dataloader()) == list(range(20))
    assert data.train_dataloader().dataset.dataset is DATA
    assert "val_dataloader" not in vars(data)


def test_what_is_no_data_is_one_sentence():
    with pytest.raises(Refused, match="returned a int"):
        LoaderData(3)


def test_a_models_own_loaders_are_divided_as_well():
    class Net(LightningModule):
        def train_dataloader(self):
            return DataLoader(DATA, 4, shuffle=True)

        def val_dataloader(self):
            return DataLoader(DATA, 4)

    data = ModelData(Net())
    parts = [training(data.train_dataloader(), rank=r, world_size=2) for r in (0, 1)]
    assert sorted(chain(*(samples(part) for part in parts))) == [*range(20)]
    assert len(samples(validation(data.val_dataloader(), world_size=2))) == 10
    assert "test_dataloader" not in vars(data)
    with pytest.raises(Refused, match=r"has no train_dataloader\. Give --data"):
        ModelData(LightningModule())
