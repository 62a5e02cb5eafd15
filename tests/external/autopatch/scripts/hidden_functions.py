"""State that functions carry: closures, decorators, defaults, attributes, methods, partials."""

import functools
import random

import torch
from common import data, finish, network, seed
from torch.utils.data import DataLoader


def counted(function):
    calls = 0

    @functools.wraps(function)
    def call(*args):
        nonlocal calls
        calls += 1
        return (*function(*args), calls)

    return call


def make_step(model, optimizer):
    running, steps = [], 0

    def step(x, y):
        nonlocal steps
        steps += 1
        loss = torch.nn.functional.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        running.append(loss.item())
        return loss.item(), steps, sum(running[-3:])

    return step


@counted
def remember(value, seen=[]):  # noqa: B006 - as people write
    seen.append(value)
    remember.total = getattr(remember, "total", 0.0) + value
    return len(seen), remember.total


def add(rows, value):
    rows.append(value)
    return len(rows)


class Agent:
    def __init__(self):
        self.share, self.rate, self.seen = 1.0, 0.1, 0

    def look(self):
        setattr(self, "seen", self.seen + 1)  # noqa: B010
        return self.seen


class Noise:
    def __init__(self):
        self.value, self.random = 0.0, random.Random(3)

    def draw(self):
        self.value += self.random.random()
        return self.value


seed()
model = network()
step = make_step(model, torch.optim.SGD(model.parameters(), lr=0.05))
loader = DataLoader(data(), 8, shuffle=True)
agent = Agent()
draw, keep = Noise().draw, functools.partial(add, [])
for epoch in range(3):
    for x, y in loader:
        found = step(x, y)
        agent.share *= 0.9
        agent.rate = agent.rate / 2
        print(epoch, *found, *remember(found[0]), agent.share, agent.look(), draw(), keep(epoch))
finish(model)
