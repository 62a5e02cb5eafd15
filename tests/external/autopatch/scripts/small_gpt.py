"""A small GPT: `while True`, batches drawn from an array, warm-up and cosine by hand."""

import math

import numpy as np
import torch
from common import finish, seed
from torch import nn
from torch.nn import functional as F

batch_size, block, max_iters, eval_interval, learning_rate = 4, 8, 20, 6, 1e-2
config = {
    k: v for k, v in globals().items() if not k.startswith("_") and isinstance(v, (int, float))
}
seed()
data = np.random.randint(0, 30, 500).astype(np.uint16)


def get_batch(split):
    ix = torch.randint(len(data) - block, (batch_size,))
    x = torch.stack([torch.from_numpy(data[i : i + block].astype(np.int64)) for i in ix])
    y = torch.stack([torch.from_numpy(data[i + 1 : i + 1 + block].astype(np.int64)) for i in ix])
    return x, y


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.ln1, self.ln2 = nn.LayerNorm(16), nn.LayerNorm(16)
        self.qkv, self.proj = nn.Linear(16, 48), nn.Linear(16, 16)
        self.mlp = nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 16), nn.Dropout(0.1))

    def forward(self, x):
        q, k, v = self.qkv(self.ln1(x)).chunk(3, -1)
        x = x + self.proj(F.scaled_dot_product_attention(q, k, v, is_causal=True))
        return x + self.mlp(self.ln2(x))


class GPT(nn.Module):
    def __init__(self):
        super().__init__()
        self.wte, self.wpe = nn.Embedding(30, 16), nn.Embedding(block, 16)
        self.blocks = nn.ModuleList([Block() for _ in range(2)])
        self.head = nn.Linear(16, 30, bias=False)
        self.head.weight = self.wte.weight

    def forward(self, x, y):
        h = self.wte(x) + self.wpe(torch.arange(x.size(1)))
        for layer in self.blocks:
            h = layer(h)
        return F.cross_entropy(self.head(h).view(-1, 30), y.view(-1))


@torch.no_grad()
def estimate_loss():
    out = {}
    model.eval()
    for split in ["train", "val"]:
        losses = torch.zeros(3)
        for k in range(3):
            x, y = get_batch(split)
            losses[k] = model(x, y).item()
        out[split] = losses.mean()
    model.train()
    return out


def get_lr(it):
    return learning_rate * (it + 1) / 5 if it < 5 else learning_rate * 0.5 * (1 + math.cos(it / 20))


model = GPT()
decay = [p for p in model.parameters() if p.dim() >= 2]
rest = [p for p in model.parameters() if p.dim() < 2]
groups = [{"params": decay, "weight_decay": 0.1}, {"params": rest, "weight_decay": 0.0}]
optimizer = torch.optim.AdamW(groups, lr=learning_rate)
best_val_loss, iter_num = 1e9, 0
X, Y = get_batch("train")
while True:
    lr = get_lr(iter_num)
    for group in optimizer.param_groups:
        group["lr"] = lr
    if iter_num % eval_interval == 0:
        losses = estimate_loss()
        print(f"step {iter_num}: {losses['train']:.8f} {losses['val']:.8f}", flush=True)
        if losses["val"] < best_val_loss:
            best_val_loss = losses["val"]
    for micro in range(2):
        loss = model(X, Y) / 2
        X, Y = get_batch("train")
        loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    print(iter_num, loss.item(), lr, flush=True)
    iter_num += 1
    if iter_num > max_iters:
        break
print(best_val_loss)
finish(model)
