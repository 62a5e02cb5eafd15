"""A module-level epoch loop: BatchNorm, dropout, AdamW, StepLR, validation, augmentation."""

import argparse
import random

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

parser = argparse.ArgumentParser()
parser.add_argument("--workers", type=int, default=0)
parser.add_argument("--persistent", action="store_true")
parser.add_argument("--compile", action="store_true")
parser.add_argument("--epochs", type=int, default=3)
args = parser.parse_args()

torch.manual_seed(1)
random.seed(2)
np.random.seed(3)


class Augmented(Dataset):
    def __init__(self, count):
        generator = torch.Generator().manual_seed(7)
        self.x = torch.randn(count, 8, generator=generator)
        self.y = (self.x.sum(1) > 0).long()

    def __len__(self):
        return len(self.x)

    def __getitem__(self, index):
        x = self.x[index] + 0.1 * torch.randn(8) + random.random() + np.random.randn()
        return x.float(), self.y[index]


print("building")
model = nn.Sequential(
    nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, 2)
)
if args.compile:
    model = torch.compile(model, backend="aot_eager")
optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.7)
options = {"num_workers": args.workers, "persistent_workers": args.persistent}
train_loader = DataLoader(Augmented(48), batch_size=8, shuffle=True, **options)
val_loader = DataLoader(Augmented(16), batch_size=8, **options)
criterion = nn.CrossEntropyLoss()
best, history = 0.0, []

for epoch in range(args.epochs):
    model.train()
    print(f"epoch {epoch} begins")
    total = 0.0
    for i, (x, y) in enumerate(train_loader):
        optimizer.zero_grad()
        loss = criterion(model(x), y)
        loss.backward()
        optimizer.step()
        total += loss.item()
        if i % 2 == 0:
            print(f"epoch {epoch} batch {i} loss {loss.item():.10f}", flush=True)
    scheduler.step()
    model.eval()
    correct = count = 0
    with torch.no_grad():
        for x, y in val_loader:
            correct += (model(x).argmax(1) == y).sum().item()
            count += len(y)
    accuracy = correct / count
    best = max(best, accuracy)
    history.append((total / len(train_loader), accuracy))
    print(f"epoch {epoch} accuracy {accuracy:.6f} lr {scheduler.get_last_lr()[0]:.8f}", flush=True)

print("best", best, "history", history)
weights = torch.cat(
    [p.detach().flatten() for p in model.state_dict().values() if p.is_floating_point()]
)
print(
    "final",
    weights.double().sum().item().hex(),
    torch.rand(1).item(),
    random.random(),
    np.random.rand(),
)
