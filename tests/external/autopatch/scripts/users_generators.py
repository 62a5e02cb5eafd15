"""Generators of the user's, one in another: with numbers of their own, a buffer, a model, pools."""

import random

import torch
from common import finish, network, seed


def examples(count=48):
    for i in range(count):
        yield {"i": i, "x": torch.randn(8, generator=torch.Generator().manual_seed(i))}


class Shuffled:
    def __init__(self, items, size):
        self.items, self.size = items, size

    def __iter__(self):
        own = random.Random(1)
        buffer = []
        for item in self.items:
            if len(buffer) < self.size:
                buffer.append(item)
                continue
            chosen = own.randrange(self.size)
            yield buffer[chosen]
            buffer[chosen] = item


def batched(items, count):
    rows = []
    for item in items:
        rows.append(item)
        if len(rows) == count:
            x = torch.stack([row["x"] for row in rows])
            yield x, (x.sum(1) > 0).long()
            rows = []


def hardest(model, data, history, count):
    waiting = []
    for example in data:
        waiting.append(example)
        if len(waiting) < 8:
            continue
        with torch.no_grad():
            sign = -1 if history[-1] > 0.6 else 1
            score = model(torch.stack([each["x"] for each in waiting])).sum(1) * sign
        waiting = [waiting[each] for each in score.argsort().tolist()]
        rows, waiting = waiting[:count], waiting[count:]
        yield torch.stack([row["x"] for row in rows])


def drawn(pools, count):
    while count:
        count -= 1
        yield torch.stack([random.choice(random.choice(pools)) for _ in range(4)])


def main():
    seed()
    model = network()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    history = [1.0]

    def train(name, x, y):
        def closure():
            optimizer.zero_grad()
            loss = torch.nn.functional.cross_entropy(model(x), y)
            loss.backward()
            return loss

        history.append(optimizer.step(closure).item())
        print(name, len(history), history[-1], flush=True)

    for x, y in batched(Shuffled(examples(), 6), 4):
        train("shuffled", x, y)
    data = list(examples(32))
    for x in hardest(model, data, history, 4):
        train("hardest", x, (x.sum(1) > 0).long())
    few, many = [data[0]["x"]], [data[1]["x"]]
    for x in drawn([few, many], 8):
        few.append(x[0] * 0.5)
        train("drawn", x, torch.tensor([0, 1, 0, len(few) % 2]))
    print(sum(history))
    finish(model)


main()
