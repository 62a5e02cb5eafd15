"""An IterableDataset with a generator of its own."""

import torch
from common import finish, network, seed
from torch.utils.data import DataLoader, IterableDataset


class Stream(IterableDataset):
    def __init__(self):
        self.epoch = 0

    def __iter__(self):
        generator = torch.Generator().manual_seed(self.epoch)
        self.epoch += 1
        for _ in range(40):
            x = torch.randn(8, generator=generator)
            yield x, (x.sum() > 0).long()


seed()
model = network()
optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
loader = DataLoader(Stream(), 8)
for epoch in range(3):
    for x, y in loader:
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        print(epoch, loss.item(), flush=True)
finish(model)
