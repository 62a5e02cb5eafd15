"""A class Trainer: gradient accumulation, GradScaler, autocast."""

import torch
from common import data, finish, network, seed
from torch.utils.data import DataLoader


class Trainer:
    def __init__(self, model, optimizer, loader, accumulate):
        self.model, self.optimizer, self.loader = model, optimizer, loader
        self.accumulate = accumulate
        self.scaler = torch.amp.GradScaler("cpu", init_scale=256.0, growth_interval=3)
        self.step = 0
        self.epoch = 0
        self.history = []

    def fit(self, epochs):
        while self.epoch < epochs:
            self.run_epoch()
            self.epoch += 1

    def run_epoch(self):
        self.model.train()
        for i, batch in enumerate(self.loader):
            loss = self.training_step(batch)
            if (i + 1) % self.accumulate == 0 or i + 1 == len(self.loader):
                self.scaler.step(self.optimizer)
                self.scaler.update()
                self.optimizer.zero_grad()
                self.step += 1
            self.history.append(loss)
            print(self.epoch, i, self.step, loss, self.scaler.get_scale(), flush=True)

    def training_step(self, batch):
        x, y = batch
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = torch.nn.functional.cross_entropy(self.model(x), y)
        self.scaler.scale(loss / self.accumulate).backward()
        return loss.item()


if __name__ == "__main__":
    seed()
    model = network()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.02)
    trainer = Trainer(model, optimizer, DataLoader(data(56), 8, shuffle=True), 3)
    trainer.fit(3)
    print(sum(trainer.history))
    finish(model)
