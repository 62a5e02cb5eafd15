"""A Lightning Trainer: shuffled batches, dropout, BatchNorm, augmentation, validation, callbacks."""

import argparse
import logging
import os
import random
import warnings

import torch
from common import data, network, seed
from lightning.pytorch import Callback, LightningModule, Trainer
from torch.utils.data import DataLoader

parser = argparse.ArgumentParser()
parser.add_argument("--workers", type=int, default=0)
parser.add_argument("--accumulate", type=int, default=1)
parser.add_argument("--fail-at", type=int, default=-1)
parser.add_argument("--devices", type=int, default=1)
parser.add_argument("--rows", type=int, default=44)
parser.add_argument("--own-order", action="store_true")
args = parser.parse_args()
warnings.simplefilter("ignore")
logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
seed()


def say(*words):
    if os.environ.get("RANK", "0") == "0":
        print(*words, flush=True)


class Augmented(torch.utils.data.Dataset):
    def __init__(self, count):
        self.rows = data(count)

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, index):
        x, y = self.rows[index]
        return x + 0.1 * torch.randn(8) + 0.1 * random.random(), y, index


class Shuffled(torch.utils.data.Sampler):
    def __init__(self, data):
        self.data = data

    def __len__(self):
        return len(self.data)

    def __iter__(self):
        return iter(random.sample(range(len(self.data)), len(self.data)))


class Net(LightningModule):
    def __init__(self):
        super().__init__()
        self.net = network()

    def training_step(self, batch, index):
        x, y, number = batch
        loss = torch.nn.functional.cross_entropy(self.net(x), y)
        self.log("loss", loss, on_step=True, on_epoch=True)
        is_last = (index + 1) % args.accumulate == 0
        if self.global_step == args.fail_at and is_last:
            raise KeyError("the user's own")
        say(self.current_epoch, index, loss.item())
        if folder := os.environ.get("OUT"):
            with open(f"{folder}/samples-{self.global_rank}", "a") as file:
                file.write("".join(f"{self.current_epoch} {each}\n" for each in number.tolist()))
        return loss

    def validation_step(self, batch, index):
        x, y, _ = batch
        if "SAY_VALIDATION" in os.environ and not self.trainer.sanity_checking:
            say("validates", index, torch.rand(1).item())
        self.log("val", torch.nn.functional.cross_entropy(self.net(x), y))

    def configure_optimizers(self):
        optimizer = torch.optim.AdamW(self.parameters(), lr=0.05)
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)]


class Say(Callback):
    def on_train_epoch_start(self, trainer, module):
        say("epoch", trainer.current_epoch, torch.rand(1).item())

    def on_train_epoch_end(self, trainer, module):
        say("logged", sorted((k, v.item()) for k, v in trainer.callback_metrics.items()))


say("building")
model = Net()
rows = Augmented(args.rows)
order = {"sampler": Shuffled(rows)} if args.own_order else {"shuffle": True}
loaders = [
    DataLoader(rows, 8, num_workers=args.workers, **order),
    DataLoader(Augmented(16), 8, num_workers=args.workers),
]
options = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
trainer = Trainer(
    max_epochs=3,
    accelerator="cpu",
    devices=args.devices,
    enable_model_summary=False,
    callbacks=[Say()],
    accumulate_grad_batches=args.accumulate,
    **options,
)
trainer.fit(model, *loaders)
total = sum(v.double().sum().item() for v in model.state_dict().values())
say("final", total.hex(), torch.rand(1).item(), random.random())
