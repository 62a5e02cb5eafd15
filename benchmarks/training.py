"""What the checkpoint benchmarks save: a transformer in the middle of its training with AdamW."""

import time
from typing import Any

import torch


class Training:
    """A transformer of which weights and optimizer state are about `megabytes` together."""

    def __init__(self, megabytes: int) -> None:
        width = 768 if megabytes >= 500 else 384
        layer = 12 * width * width * 12 / 1e6  # MB: weights and two moments
        torch.manual_seed(0)
        self.model = torch.nn.Sequential(
            *(
                torch.nn.TransformerEncoderLayer(width, 6, 4 * width, dropout=0.0, batch_first=True)
                for _ in range(max(1, round(megabytes / layer)))
            )
        )
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-5)
        self.batch = torch.randn(2, 32, width)
        self.steps = 0
        self.step()

    def step(self) -> float:
        """Train one step; returns its seconds."""
        begun = time.perf_counter()
        self.model(self.batch).pow(2).mean().backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=False)
        self.steps += 1
        return time.perf_counter() - begun

    def state(self) -> dict[str, Any]:
        """Return what Lightning would save."""
        return {
            "global_step": self.steps,
            "epoch": 0,
            "state_dict": self.model.state_dict(),
            "optimizer_states": [self.optimizer.state_dict()],
        }


def tensors_of(value: object) -> list[torch.Tensor]:
    """Return all tensors in a nested state."""
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, dict):
        value = list(value.values())
    return [t for each in value for t in tensors_of(each)] if isinstance(value, list) else []
