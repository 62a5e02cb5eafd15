"""A script that begins with loaded weights, and saves and resumes by itself."""

import os

import torch
from common import data, finish, network, seed
from torch.utils.data import DataLoader

seed()
pretrained = network()
torch.save(pretrained.state_dict(), f"pretrained-{os.getpid()}.pt")
model = network()
model.load_state_dict(torch.load(f"pretrained-{os.getpid()}.pt"))
optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
loader = DataLoader(data(), 8, shuffle=True)
best = None
for epoch in range(3):
    for x, y in loader:
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        print(epoch, loss.item(), flush=True)
    if best is None or loss.item() < best:
        best = loss.item()
        torch.save({"model": model.state_dict(), "best": best}, "best.pt")
        print("saved", epoch, best)
print(torch.load("best.pt")["best"])
finish(model)
