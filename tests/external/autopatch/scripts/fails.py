"""Fails in the middle of an epoch, after its optimizer's step, if it is told to."""

import os
import time

import torch
from common import data, finish, network, seed
from torch.utils.data import DataLoader

seed()
model = network()
optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
loader = DataLoader(data(), batch_size=4, shuffle=True)
fails_at = int(os.environ.get("FAILS_AT", "-1"))
steps = 0
for epoch in range(3):
    for x, y in loader:
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        steps += 1
        print(epoch, steps, loss.item(), flush=True)
        time.sleep(float(os.environ.get("SLOW", "0")))
        if steps == fails_at:
            raise KeyError("the user's own")
finish(model)
