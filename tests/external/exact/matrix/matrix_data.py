"""What trainings of the matrix read: samplers, streams and loaders, with a state and without."""

import os
import random

import numpy as np
import torch
from lightning.pytorch.utilities import CombinedLoader
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    Sampler,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
)

RANK, RANKS = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
SAMPLES, BATCH = {1: (18, 4), 2: (28, 8), 3: (21, 6)}[RANKS]  # the last batch is not full


class Augmented(Dataset):
    """Draws from all three generators for every sample."""

    def __init__(self, data):
        self.data = data

    def __len__(self):
        return len(self.data)

    def __getitem__(self, index):
        x, y = self.data[index]
        return x + torch.randn(3) + np.random.normal() + random.gauss(0, 1), y


class Walk(Sampler):
    """Goes through the data in an order of its own and knows where it is."""

    def __init__(self, samples, *, with_state=True):
        self.samples, self.epoch, self.next = samples, 0, 0
        if with_state:
            self.state_dict = lambda: {"epoch": self.epoch, "next": self.next}
            self.load_state_dict = self.__dict__.update

    def __len__(self):
        return self.samples

    def __iter__(self):
        order = torch.randperm(
            self.samples, generator=torch.Generator().manual_seed(self.epoch)
        ).tolist()
        while self.next < self.samples:
            self.next += 1
            yield order[self.next - 1]
        self.epoch, self.next = self.epoch + 1, 0


class DividedWalk(DistributedSampler):
    """A part of the data for each process, in an order of its own."""

    def __init__(self, data):
        super().__init__(data, RANKS, RANK)
        self.walk = Walk(SAMPLES // RANKS)
        self.state_dict, self.load_state_dict = self.walk.state_dict, self.walk.load_state_dict

    def __iter__(self):
        for index in self.walk:
            yield index * RANKS + RANK


class Drawing(Sampler):
    """Draws every index from the global generator, one by one, and has no state."""

    def __len__(self):
        return SAMPLES

    def __iter__(self):
        for _ in range(SAMPLES):
            yield int(torch.randint(SAMPLES, ()))


class Endless:
    """A batch sampler that does not say how many batches come."""

    def __init__(self, walk):
        self.walk = walk
        self.state_dict, self.load_state_dict = walk.state_dict, walk.load_state_dict

    def __iter__(self):
        return iter(BatchSampler(self.walk, BATCH, drop_last=False))


class Pairs:
    """A batch sampler with a generator of its own."""

    def __init__(self, samples):
        self.samples, self.generator = samples, torch.Generator().manual_seed(5)
        self.next = 0

    def __len__(self):
        return 5

    def __iter__(self):
        while self.next < 5:
            self.next += 1
            yield torch.randint(self.samples, (3,), generator=self.generator).tolist()
        self.next = 0

    def state_dict(self):
        return {"generator": self.generator.get_state(), "next": self.next}

    def load_state_dict(self, state):
        self.generator.set_state(state["generator"])
        self.next = state["next"]


class Stream(IterableDataset):
    """Reads on where it was, over and over."""

    def __init__(self, data, *, length=None, with_state=True):
        self.data, self.next, self.length = data, 0, length
        if with_state:
            self.state_dict = lambda: {"next": self.next}
            self.load_state_dict = self.__dict__.update
        if length is not None:
            self.__class__ = type("SizedStream", (Stream,), {"__len__": lambda own: own.length})

    def __iter__(self):
        if not hasattr(self, "state_dict"):
            self.next = 0
        length = self.length or 14
        end = (self.next // length + 1) * length
        while self.next < end:
            x, y = self.data[self.next % len(self.data)]
            self.next += 1
            yield x + torch.randn(3), y


class Chunks:
    """A loader that is no DataLoader and knows where it is, as torchdata's does."""

    def __init__(self, data):
        self.data, self.epoch, self.next = data, 0, 0

    def __len__(self):
        return 5

    def __iter__(self):
        while self.next < 5:
            self.next += 1
            start = (self.epoch + self.next * 3) % 14
            yield self.data[start : start + 4]
        self.epoch, self.next = self.epoch + 1, 0

    def state_dict(self):
        return {"epoch": self.epoch, "next": self.next}

    def load_state_dict(self, state):
        self.__dict__.update(state)


def tensors(samples, seed=7):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(samples, 3, generator=generator)
    return TensorDataset(x, torch.randn(samples, 1, generator=generator))


def data_of(kind, *, workers=0, persistent=False, augmented=False, world_size=1, **options):
    """Return what is trained and validated on."""
    data = tensors(SAMPLES)
    source = Augmented(data) if augmented else data
    workers = {"num_workers": workers, "persistent_workers": persistent}
    options = {"batch_size": BATCH, **workers, **options}
    batches = BatchSampler(Walk(SAMPLES), 4, False)
    made = {
        "plain": lambda: DataLoader(source, **options),
        "shuffled": lambda: DataLoader(source, shuffle=True, **options),
        "replacing": lambda: DataLoader(source, sampler=RandomSampler(data, True, 15), **options),
        "subset": lambda: DataLoader(source, sampler=SubsetRandomSampler(range(14)), **options),
        "weighted": lambda: DataLoader(
            source, sampler=WeightedRandomSampler([*range(1, SAMPLES + 1)], SAMPLES), **options
        ),
        "own generator": lambda: DataLoader(
            source,
            sampler=SubsetRandomSampler(range(SAMPLES), generator=torch.Generator()),
            **options,
        ),
        "distributed": lambda: DataLoader(
            source, sampler=DistributedSampler(data, 2, 0), **options
        ),
        "divided": lambda: DataLoader(source, sampler=DividedWalk(data), **options),
        "sampler": lambda: DataLoader(source, sampler=Walk(SAMPLES), **options),
        "endless sampler": lambda: DataLoader(source, batch_sampler=Endless(Walk(SAMPLES))),
        "batch sampler": lambda: DataLoader(source, batch_sampler=Pairs(SAMPLES), **workers),
        "a batch sampler of torch's": lambda: DataLoader(source, batch_sampler=batches, **workers),
        "stateless sampler": lambda: DataLoader(source, sampler=Drawing(), **options),
        "stream": lambda: DataLoader(Stream(data), BATCH),
        "sized stream": lambda: DataLoader(Stream(data, length=13), BATCH),
        "stateless stream": lambda: DataLoader(Stream(data, with_state=False), BATCH),
        "loader": lambda: Chunks(data),
        "several": lambda: {
            "long": DataLoader(source, shuffle=True, **options),
            "short": DataLoader(tensors(7, 3), shuffle=True, **options),
        },
        "the shorter of two": lambda: CombinedLoader(
            [DataLoader(source, **options), DataLoader(tensors(11, 3), shuffle=True, **options)],
            "min_size",
        ),
    }
    return made[kind]()
