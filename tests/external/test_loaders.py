from itertools import chain
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch import LightningDataModule, LightningModule
from torch.utils.data import (
    DataLoader,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    TensorDataset,
    WeightedRandomSampler,
)

from curitorch.external.data_modules import LoaderData, ModelData
from curitorch.external.loaders import put_in_order
from curitorch.external.refused import Refused
from curitorch.external.sampling import GlobalBatchSampler, UnevenBatch

DATA = TensorDataset(torch.arange(20))


def trainer(rank=0, world_size=1):
    """What `put_in_order` asks of a Trainer, at the beginning of its first epoch."""
    counters = SimpleNamespace(ready=0, processed=0)
    progress = SimpleNamespace(current=counters)
    epoch_loop = SimpleNamespace(batch_progress=progress)
    return SimpleNamespace(
        global_rank=rank,
        world_size=world_size,
        num_training_batches=5,
        fit_loop=SimpleNamespace(epoch_loop=epoch_loop, epoch_progress=progress),
    )


def ordered(loaders, *, batch_size=4, **place):
    data = loaders if isinstance(loaders, LightningDataModule) else LoaderData(loaders)
    put_in_order(data, trainer(**place), batch_size=batch_size, seed=0)
    return data


def samples(loader):
    return torch.cat([batch[0] for batch in loader]).tolist()


def collate_twice(rows):
    return torch.utils.data.default_collate(rows * 2)


def test_a_plain_loader_is_divided_and_keeps_what_the_user_chose():
    loader = DataLoader(DATA, 16, shuffle=True, collate_fn=collate_twice, num_workers=0)
    parts = [ordered(loader, rank=r, world_size=2).train_dataloader() for r in (0, 1)]
    assert all(isinstance(part.batch_sampler, GlobalBatchSampler) for part in parts)
    assert all(part.collate_fn is collate_twice for part in parts)
    assert [len(part) for part in parts] == [5, 5]
    assert sorted(samples(parts[0]) + samples(parts[1])) == sorted([*range(20), *range(20)])


def test_the_global_batch_is_the_loaders_own_where_none_is_given():
    loader = ordered(DataLoader(DATA, 10), batch_size=None, world_size=2).train_dataloader()
    assert [len(batch[0]) for batch in loader] == [5, 5]


def test_evaluation_data_is_divided_when_that_is_exact_and_whole_otherwise():
    for size, expected in ((20, 10), (19, 19)):
        loader = DataLoader(TensorDataset(torch.arange(size)), 4)
        data = ordered((DataLoader(DATA, 4), loader), world_size=2)
        assert len(samples(data.val_dataloader())) == expected


@pytest.mark.parametrize(
    ("loader", "reason"),
    [
        (
            DataLoader(DATA, 4, sampler=WeightedRandomSampler([1.0] * 20, 20)),
            "a sampler of its own",
        ),
        (DataLoader(DATA, 4, sampler=RandomSampler(DATA, replacement=True)), "with replacement"),
        (DataLoader(DATA, batch_sampler=[[0, 1], [2]]), "a batch sampler of its own"),
        (DataLoader(DATA, None), "no automatic batching"),
        ([torch.zeros(1)], "a list instead of a DataLoader"),
    ],
)
def test_an_order_that_is_not_ours_is_said_and_refused_on_several_processes(loader, reason):
    with pytest.warns(UserWarning, match=reason):
        assert ordered({"train": loader}).train_dataloader() is loader
    with pytest.raises(UnevenBatch, match=reason):
        ordered({"train": loader}, world_size=2).train_dataloader()


def test_data_that_divides_itself_is_let_be():
    class Stream(IterableDataset):
        def __iter__(self):
            return iter(range(3))

    own = DistributedSampler(DATA, num_replicas=2, rank=0)
    for loader in (DataLoader(DATA, 4, sampler=own), DataLoader(Stream(), 1)):
        with pytest.warns(UserWarning, match="cannot be restored"):
            assert ordered(loader, world_size=2).train_dataloader() is loader


def test_a_data_modules_own_hooks_and_missing_loaders_stay():
    class Data(LightningDataModule):
        def train_dataloader(self):
            return DataLoader(DATA, 4)

    data = ordered(Data())
    assert samples(data.train_dataloader()) == list(range(20))
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

    parts = [ordered(ModelData(Net()), rank=rank, world_size=2) for rank in (0, 1)]
    assert sorted(chain(*(samples(part.train_dataloader()) for part in parts))) == [*range(20)]
    assert all(len(samples(part.val_dataloader())) == 10 for part in parts)
    assert "test_dataloader" not in vars(parts[0])
    with pytest.raises(Refused, match=r"has no train_dataloader\. Give --data"):
        ModelData(LightningModule())
