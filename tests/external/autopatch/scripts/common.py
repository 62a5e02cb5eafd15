"""What the scripts share: data, a model, and a last line that tells every bit apart."""

import random

import numpy as np
import torch
from torch import nn


def seed():
    torch.manual_seed(1)
    random.seed(2)
    np.random.seed(3)


def data(count=48, width=8):
    generator = torch.Generator().manual_seed(7)
    x = torch.randn(count, width, generator=generator)
    return torch.utils.data.TensorDataset(x, (x.sum(1) > 0).long())


def network(width=8):
    return nn.Sequential(
        nn.Linear(width, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, 2)
    )


def finish(*models):
    total = 0.0
    for model in models:
        for value in model.state_dict().values():
            total += value.double().sum().item()
    print("final", total.hex(), torch.rand(1).item(), random.random(), np.random.rand())
