"""Distributed data parallel training under torchrun."""

import json
import os
import signal

import torch
import torch.distributed as dist
from common import data, network, seed
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader
from torch.utils.data.distributed import DistributedSampler

dist.init_process_group("gloo")
rank, world_size = dist.get_rank(), dist.get_world_size()
seed()
torch.manual_seed(100 + rank)
model = DistributedDataParallel(network(), **json.loads(os.environ.get("DDP", "{}")))
optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
sampler = DistributedSampler(data(96), shuffle=True)
loader = DataLoader(data(96), batch_size=4, sampler=sampler)
folder = os.environ["OUT"]
best = 0.0
for epoch in range(3):
    sampler.set_epoch(epoch)
    model.train()
    for i, (x, y) in enumerate(loader):
        loss = torch.nn.functional.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with open(f"{folder}/samples-{rank}", "a") as file:
            file.write("".join(f"{epoch} {row.sum().item()}\n" for row in x))
        if epoch == 1 and os.environ.pop("TERM_RANK", "") == str(rank):
            os.kill(os.getpid(), signal.SIGTERM)
        if rank == 0:
            print(epoch, i, loss.item(), flush=True)
    best = max(best, loss.item())
if rank == 0:
    total = sum(v.double().sum().item() for v in model.state_dict().values())
    print("final", total.hex(), best, torch.rand(1).item())
dist.destroy_process_group()
