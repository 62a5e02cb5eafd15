"""main() and train_one_epoch(), meters, EMA, ReduceLROnPlateau, early stopping."""

import copy

import torch
from common import data, finish, network, seed
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader, random_split


class Meter:
    def __init__(self, name):
        self.name = name
        self.reset()

    def reset(self):
        self.total, self.count = 0.0, 0

    def update(self, value, n):
        self.total += value * n
        self.count += n

    @property
    def mean(self):
        return self.total / self.count


def train_one_epoch(model, ema, shadow, loader, optimizer, epoch):
    model.train()
    meter = Meter("loss")
    print(f"training epoch {epoch}", flush=True)
    for i, (x, y) in enumerate(loader):
        loss = torch.nn.functional.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        ema.update_parameters(model)
        with torch.no_grad():
            for name, value in model.named_parameters():
                shadow[name] = 0.9 * shadow[name] + 0.1 * value.detach()
        meter.update(loss.item(), len(x))
        print(f"{epoch}:{i} {meter.mean}", flush=True)
    return meter.mean


def evaluate(model, loader):
    model.eval()
    meter = Meter("val")
    with torch.no_grad():
        for x, y in loader:
            print("validating", flush=True)
            meter.update(torch.nn.functional.cross_entropy(model(x), y).item(), len(x))
    return meter.mean


def main():
    seed()
    model = network()
    ema = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9))
    frozen = copy.deepcopy(model)
    shadow = {name: value.detach().clone() for name, value in model.named_parameters()}
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=0, factor=0.5)
    train, val = random_split(data(64), [48, 16])
    train_loader = DataLoader(train, 8, shuffle=True)
    val_loader = DataLoader(val, 8)
    best, bad, best_weights, total = float("inf"), 0, None, 0.0
    for epoch in range(8):
        total += train_one_epoch(model, ema, shadow, train_loader, optimizer, epoch)
        val_loss = evaluate(model, val_loader)
        ema_loss = evaluate(ema, val_loader)
        plateau.step(val_loss)
        print(f"epoch {epoch} {val_loss} {ema_loss} {optimizer.param_groups[0]['lr']}", flush=True)
        if val_loss < best:
            best, bad = val_loss, 0
            best_weights = {k: v.clone() for k, v in model.state_dict().items()}
        else:
            bad += 1
            if bad >= 2:
                print("early stop", epoch)
                break
    print(total, best, sum(v.sum().item() for v in shadow.values()))
    model.load_state_dict(best_weights)
    finish(model, ema, frozen)


if __name__ == "__main__":
    main()
