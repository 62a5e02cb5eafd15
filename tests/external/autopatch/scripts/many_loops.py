"""Two loaders side by side, zip, enumerate(zip), nested loops, lists, tqdm, validation inside."""

import sys

import torch
from common import data, finish, network, seed
from torch.utils.data import DataLoader
from tqdm import tqdm, trange

seed()
model = network()
optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
labelled, unlabelled = DataLoader(data(), 8, shuffle=True), DataLoader(data(40), 8, shuffle=True)
val_loader = DataLoader(data(24), 8)
extra = iter(unlabelled)
seen = 0


def step(x, y):
    global seen
    optimizer.zero_grad()
    loss = torch.nn.functional.cross_entropy(model(x), y)
    loss.backward()
    optimizer.step()
    seen += len(x)
    return loss.item()


def validate():
    model.eval()
    total = 0.0
    with torch.no_grad():
        for x, y in val_loader:
            total += torch.nn.functional.cross_entropy(model(x), y).item()
    model.train()
    return total


for phase in ["warm", "main"]:
    for lr in (0.1, 0.01):
        for group in optimizer.param_groups:
            group["lr"] = lr
        for i, ((x, y), (u, _)) in enumerate(zip(labelled, unlabelled)):
            print(phase, lr, i, step(x, y) + step(u, model(u).argmax(1)), flush=True)
for x, y in labelled:
    try:
        u, v = next(extra)
    except StopIteration:
        extra = iter(unlabelled)
        u, v = next(extra)
    print("side", step(x, y), step(u, v), flush=True)
for epoch in trange(2, file=sys.stderr):
    for i, (x, y) in enumerate(tqdm(labelled, file=sys.stderr)):
        loss = step(x, y)
        if i % 2 == 1:
            print("valid", epoch, i, validate(), flush=True)
for (x, y), (u, v) in zip(labelled, unlabelled):
    for a, b in [(x, y), (u, v)]:
        print("pair", step(a, b), seen, flush=True)
finish(model)
