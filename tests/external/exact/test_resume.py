"""Stopping between any two steps and going on ends as if nothing had happened."""

from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, seed_everything
from lightning.pytorch.plugins import TorchCheckpointIO
from matrix_data import Augmented
from torch.utils.data import DataLoader, TensorDataset

from curitorch.external.journal import merged, read_journal
from curitorch.external.open_job import open_job
from curitorch.params import CheckpointParams

SAMPLES, BATCH, EPOCHS = 22, 4, 3  # 6 steps per epoch, the last one with 2 samples


class Small(LightningModule):
    def __init__(self, scheduler: str = "step", dropout: float = 0.0):
        super().__init__()
        self.scheduler = scheduler
        self.layer = torch.nn.Linear(3, 1)
        self.dropout = torch.nn.Dropout(dropout)

    def on_after_batch_transfer(self, batch, dataloader_idx):
        x, y = batch
        return (x + torch.randn_like(x) * self.dropout.p, y) if self.trainer.training else batch

    def training_step(self, batch, batch_idx):
        x, y = batch
        loss = torch.nn.functional.mse_loss(self.layer(self.dropout(x)), y)
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch, batch_idx):
        x, y = batch
        self.log("val/loss", torch.nn.functional.mse_loss(self.layer(x), y))

    def configure_optimizers(self):
        optimizer = torch.optim.Adam(self.parameters(), lr=0.1)
        if self.scheduler == "plateau":
            scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(
                optimizer, patience=0, factor=0.5
            )
            config = {"scheduler": scheduler, "monitor": "val/loss"}
            return {"optimizer": optimizer, "lr_scheduler": config}
        scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)
        return {"optimizer": optimizer, "lr_scheduler": scheduler}


def loaders(workers=0, augmented=False, persistent=False):
    generator = torch.Generator().manual_seed(7)
    x = torch.randn(SAMPLES, 3, generator=generator)
    y = torch.randn(SAMPLES, 1, generator=generator)
    data = TensorDataset(x, y)
    training = Augmented(data) if augmented else data
    options = {"num_workers": workers, "persistent_workers": persistent}
    return DataLoader(training, BATCH, shuffle=True, **options), DataLoader(data, BATCH)


class AskToStop(Callback):
    """What a signal does, at an exact step."""

    def __init__(self, job, step):
        self.job, self.step = job, step

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        if trainer.global_step == self.step:
            self.job.stop.reason = "SIGTERM"


def train(run: Path, *, stop_at=None, scheduler="step", dropout=0.0, data=None, **options):
    """Train, perhaps stopped; returns the model if training reached its end."""
    seed_everything(1, verbose=False)
    model = Small(scheduler, dropout)
    policy = options.pop("policy", CheckpointParams(keep=0))
    options = {"max_epochs": EPOCHS, "log_every_n_steps": 1, "accelerator": "cpu", **options}
    try:
        with open_job(run_dir=run, policy=policy) as job:
            callbacks = [] if stop_at is None else [AskToStop(job, stop_at)]
            trainer = job.trainer(
                callbacks=callbacks,
                enable_progress_bar=False,
                enable_model_summary=False,
                **options,
            )
            job.fit(trainer, model, loaders(**(data or {})), batch_size=BATCH, seed=3)
    except SystemExit as stopped:
        assert stopped.code == 143
        return None
    return model


def history(run: Path):
    """Return what the journal says, without times."""
    kept, times = ("step", "metric", "complete"), ("time", "seconds")
    events = [e for e in merged(read_journal(run / "journal.jsonl")) if e["event"] in kept]
    return [{k: value for k, value in event.items() if k not in times} for event in events]


CASES = {
    "plain": {},
    "validation twice an epoch": {"val_check_interval": 3},
    "validation by steps": {"val_check_interval": 4, "check_val_every_n_epoch": None},
    "accumulation": {"accumulate_grad_batches": 2},
    "plateau": {"scheduler": "plateau"},
    "saved in the background": {"policy": CheckpointParams(keep=0, asynchronous=True)},
    "a plugin of the user's": {"plugins": TorchCheckpointIO()},
    "dropout": {"dropout": 0.5},
    "dropout and accumulation": {"dropout": 0.5, "accumulate_grad_batches": 2},
    "augmentation": {"data": {"augmented": True}},
    "augmentation and dropout in two workers": {
        "dropout": 0.5,
        "data": {"augmented": True, "workers": 2},
    },
    "persistent workers": {"data": {"augmented": True, "workers": 2, "persistent": True}},
    "a limit of steps within an epoch": {"max_epochs": -1, "max_steps": 15},
}


@pytest.mark.parametrize("case", CASES)
def test_a_run_stopped_after_any_step_ends_as_one_that_was_not(case, tmp_path):
    whole = train(tmp_path / "whole", **CASES[case])
    expected = history(tmp_path / "whole")
    steps = [event["step"] for event in expected if event["event"] == "step"]
    if "data" in CASES[case]:  # worker processes take their time
        steps = [*steps[::4], steps[-1]]
    for stop_at in steps[:-1]:
        run = tmp_path / f"stopped at {stop_at}"
        assert train(run, stop_at=stop_at, **CASES[case]) is None
        resumed = train(run, **CASES[case])
        assert history(run) == expected, stop_at
        assert torch.equal(resumed.layer.weight, whole.layer.weight), stop_at
        assert torch.equal(resumed.layer.bias, whole.layer.bias), stop_at
