"""A recurrent network on sequences of any length, packed, with a transfer hook of its own."""

import torch
from lightning.pytorch import LightningModule
from torch import nn
from torch.nn.utils.rnn import pack_sequence, pad_packed_sequence
from torch.utils.data import DataLoader, Dataset


class Sequences(Dataset):
    def __init__(self, count, seed):
        generator = torch.Generator().manual_seed(seed)
        lengths = torch.randint(2, 9, (count,), generator=generator).tolist()
        self.items = [torch.randint(0, 10, (n,), generator=generator) for n in lengths]

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        words = self.items[index]
        return words, words.sum() % 2


def packed(samples):
    words, parities = zip(*samples, strict=True)
    return {"words": pack_sequence(words, enforce_sorted=False), "parity": torch.stack(parities)}


class Reader(LightningModule):
    def __init__(self, width=6):
        super().__init__()
        self.save_hyperparameters()
        self.embedding = nn.Embedding(10, width)
        self.rnn = nn.LSTM(width, width, num_layers=2, dropout=0.2, batch_first=True)
        self.head = nn.Linear(width, 2)

    def forward(self, words):
        embedded = words._replace(data=self.embedding(words.data))
        outputs, lengths = pad_packed_sequence(self.rnn(embedded)[0], batch_first=True)
        last = outputs[torch.arange(len(lengths)), lengths - 1]
        return self.head(last)

    def transfer_batch_to_device(self, batch, device, dataloader_idx):
        return {"words": batch["words"].to(device), "parity": batch["parity"].to(device)}

    def _step(self, batch, name):
        loss = nn.functional.cross_entropy(self(batch["words"]), batch["parity"])
        self.log(f"{name}_loss", loss, on_epoch=True, batch_size=len(batch["parity"]))
        return loss

    def training_step(self, batch, batch_idx):
        return self._step(batch, "train")

    def validation_step(self, batch, batch_idx):
        self._step(batch, "val")

    def configure_gradient_clipping(
        self, optimizer, gradient_clip_val=None, gradient_clip_algorithm=None
    ):
        self.clip_gradients(optimizer, gradient_clip_val=1.0, gradient_clip_algorithm="value")

    def configure_optimizers(self):
        optimizer = torch.optim.RMSprop(self.parameters(), lr=0.01)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (1 + step))
        return [optimizer], [{"scheduler": schedule, "interval": "step", "frequency": 3}]

    def optimizer_zero_grad(self, epoch, batch_idx, optimizer):
        optimizer.zero_grad(set_to_none=False)


OPTIONS = {"max_steps": 17, "check_val_every_n_epoch": 2}


def make():
    loaders = (
        DataLoader(Sequences(45, 1), 7, shuffle=True, collate_fn=packed),
        DataLoader(Sequences(15, 2), 7, collate_fn=packed),
    )
    return Reader(), loaders
