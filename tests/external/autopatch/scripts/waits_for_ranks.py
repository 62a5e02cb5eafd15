"""Two ranks that train until they are ended; each says who it is."""

import os
import time

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

dist.init_process_group("gloo")
model = DistributedDataParallel(torch.nn.Linear(2, 1))
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
silent = os.environ.get("SILENT") == os.environ["RANK"]
for step in range(100_000):
    optimizer.zero_grad()
    model(torch.ones(4, 2)).sum().backward()
    optimizer.step()
    if step == 30:
        os.write(1, f"rank {dist.get_rank()} {os.getpid()}\n".encode())  # one write: one line
    if step == 40 and silent:
        os.write(1, b"silent\n")
        time.sleep(1000)
    time.sleep(0.005)
