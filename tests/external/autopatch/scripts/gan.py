"""Two models, two optimizers, noise from a generator of its own."""

import numpy as np
import torch
from common import data, finish, seed
from torch import nn
from torch.utils.data import DataLoader

seed()
noise = torch.Generator().manual_seed(5)
rng = np.random.default_rng(4)
G = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 8))
D = nn.Sequential(nn.Linear(8, 16), nn.LeakyReLU(0.2), nn.Linear(16, 1))
opt_g = torch.optim.Adam(G.parameters(), lr=2e-3, betas=(0.5, 0.999))
opt_d = torch.optim.Adam(D.parameters(), lr=2e-3, betas=(0.5, 0.999))
bce = nn.BCEWithLogitsLoss()
loader = DataLoader(data(), batch_size=8, shuffle=True, generator=torch.Generator().manual_seed(9))
fixed = torch.randn(2, 4, generator=noise)
for epoch in range(3):
    for real, _ in loader:
        opt_d.zero_grad()
        fake = G(torch.randn(len(real), 4, generator=noise))
        loss_d = bce(D(real), torch.ones(len(real), 1)) + bce(
            D(fake.detach()), torch.zeros(len(real), 1)
        )
        loss_d.backward()
        opt_d.step()
        opt_g.zero_grad()
        loss_g = bce(D(fake), torch.full((len(real), 1), 1 - 0.1 * rng.random()))
        loss_g.backward()
        opt_g.step()
        print(epoch, loss_d.item(), loss_g.item(), flush=True)
    print("sample", G(fixed).sum().item())
finish(G, D)
