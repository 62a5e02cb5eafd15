"""A word-language model: an LSTM over a long text in steps of bptt, no loader at all."""

import math
import time

import torch
from common import finish, seed
from torch import nn

seed()
text = torch.randint(0, 20, (400,))


def batchify(data, size):
    count = data.size(0) // size
    return data[: count * size].view(size, -1).t().contiguous()


class LanguageModel(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.rnn = nn.Embedding(20, 12), nn.LSTM(12, 12, 2, dropout=0.2)
        self.out = nn.Linear(12, 20)

    def forward(self, x, hidden):
        y, hidden = self.rnn(self.embed(x), hidden)
        return self.out(y).view(-1, 20), hidden

    def init_hidden(self, size):
        return (torch.zeros(2, size, 12), torch.zeros(2, size, 12))


def repackage(h):
    return h.detach() if isinstance(h, torch.Tensor) else tuple(repackage(v) for v in h)


def get_batch(source, i, bptt=5):
    length = min(bptt, len(source) - 1 - i)
    return source[i : i + length], source[i + 1 : i + 1 + length].view(-1)


train_data, val_data = batchify(text[:300], 4), batchify(text[300:], 4)
model = LanguageModel()
lr = 5.0
best = None


def train():
    model.train()
    total = 0.0
    start = time.time()
    hidden = model.init_hidden(4)
    for batch, i in enumerate(range(0, train_data.size(0) - 1, 5)):
        x, y = get_batch(train_data, i)
        model.zero_grad()
        hidden = repackage(hidden)
        output, hidden = model(x, hidden)
        loss = nn.functional.cross_entropy(output, y)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.25)
        optimizer.step()
        total += loss.item()
        if batch % 2 == 0 and batch > 0:
            assert time.time() >= start
            print(f"epoch {epoch} batch {batch} loss {total / 2}", flush=True)
            total = 0.0


def evaluate(source):
    model.eval()
    total, hidden = 0.0, model.init_hidden(4)
    with torch.no_grad():
        for i in range(0, source.size(0) - 1, 5):
            x, y = get_batch(source, i)
            output, hidden = model(x, hidden)
            total += len(x) * nn.functional.cross_entropy(output, y).item()
    return total / (len(source) - 1)


optimizer = torch.optim.SGD(model.parameters(), lr=lr)
for epoch in range(1, 4):
    train()
    val_loss = evaluate(val_data)
    print(f"end of epoch {epoch} {val_loss} {math.exp(val_loss)}", flush=True)
    if not best or val_loss < best:
        best = val_loss
    else:
        lr /= 4.0
        optimizer.param_groups[0]["lr"] = lr
finish(model)
