"""What logging costs a step: CurifactoryLogger beside Lightning's own loggers, in one process.

    python benchmarks/logger.py [STEPS]

Prints the processor's microseconds per step, writing threads included, and how many more they are
than without a logger: the best of three rounds, a metric at every step. The loggers take turns, so
that all see the same machine.
"""

import logging
import sys
import tempfile
import time
import warnings
from collections.abc import Callable

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger
from torch.utils.data import DataLoader

from curitorch.external import CurifactoryLogger

ROUNDS = 3
LOGGERS: dict[str, Callable[[str], Logger | None]] = {
    "none": lambda folder: None,
    "CurifactoryLogger": CurifactoryLogger,
    "CSVLogger": CSVLogger,
    "TensorBoardLogger": TensorBoardLogger,
}


class Net(LightningModule):
    """As little as can be trained."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(2, 1)

    def training_step(self, batch: torch.Tensor, batch_idx: int) -> torch.Tensor:
        """Log one value."""
        loss = self.layer(batch).square().mean()
        self.log("train/loss", loss)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return the optimizer."""
        return torch.optim.SGD(self.parameters(), lr=0.01)


def seconds(make: Callable[[str], Logger | None], steps: int) -> float:
    """Return what training takes with that logger."""
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            logger=make(folder) or False,
            max_steps=steps,
            max_epochs=-1,
            log_every_n_steps=1,
            accelerator="cpu",
            enable_checkpointing=False,
            enable_model_summary=False,
            enable_progress_bar=False,
        )
        batches = DataLoader(torch.rand(500, 8, 2), batch_size=None)
        begin = time.process_time()
        trainer.fit(Net(), batches)
        return time.process_time() - begin


def main() -> None:
    """Print the table."""
    warnings.simplefilter("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    torch.set_num_threads(1)
    steps = int(sys.argv[1]) if len(sys.argv) > 1 else 2000
    best = dict.fromkeys(LOGGERS, float("inf"))
    for _ in range(ROUNDS):
        for name, make in LOGGERS.items():
            best[name] = min(best[name], seconds(make, steps))
    for name, took in best.items():
        beyond = 1e6 * (took - best["none"]) / steps
        print(f"{name:<20} {1e6 * took / steps:8.1f} us per step  {beyond:+8.1f}")


if __name__ == "__main__":
    main()
