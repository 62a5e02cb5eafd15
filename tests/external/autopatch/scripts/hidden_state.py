"""State in unusual places: enum members, class attributes, functions, paths, dates, iterators."""

import datetime
import enum
import itertools
from fractions import Fraction
from pathlib import Path

import torch
from common import data, finish, network, seed
from torch.utils.data import DataLoader


class Phase(enum.Enum):
    WARM = 1
    MAIN = 2


class Meter:
    made = 0
    seen = {}

    def add(self, value):
        Meter.made += 1
        self.seen[value] = self.made


def slow(step):
    return 0.01


def fast(step):
    return 0.05


seed()
model = network()
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
loader = DataLoader(data(), 8, shuffle=True)
meter = Meter()
phase, rate, kind, best = Phase.WARM, slow, torch.float32, Path("none")
words = iter(["a", "b", "c", "d", "e", "f"] * 4)
numbers = itertools.count(3, 2)
share, when = Fraction(1, 3), datetime.datetime(2020, 1, 1)
lowest = float("inf")
for epoch in range(3):
    for x, y in loader:
        for group in optimizer.param_groups:
            group["lr"] = rate(epoch)
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(x.to(kind)), y)
        loss.backward()
        optimizer.step()
        meter.add(round(loss.item(), 3))
        share, when = share * Fraction(2, 3), when + datetime.timedelta(seconds=1)
        if loss.item() < lowest:
            lowest, best = loss.item(), Path("best") / f"{epoch}.pt"
        if meter.made == 5:
            phase, rate = Phase.MAIN, fast
        print(epoch, loss.item(), phase, meter.made, best, next(words), next(numbers), flush=True)
print(share, when, Meter.seen, sorted(meter.seen))
finish(model)
