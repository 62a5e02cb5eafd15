"""`val_check_interval` as a time: validations come when Lightning's do, by one clock for both."""

import itertools
import json
import warnings
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.loops import evaluation_loop, fit_loop, training_epoch_loop
from torch.utils.data import DataLoader, TensorDataset

from curitorch.external.adapter import LeanTrainer, validation_clock
from curitorch.external.refused import Refused
from curitorch.params import CheckpointParams
from tests.external.adapter.torchrun import torchrun


class Clock:
    """Goes on by a second for each training step."""

    def __init__(self, monkeypatch, begins=0.0):
        self.now = begins
        fake = SimpleNamespace(monotonic=lambda: self.now)
        for module in (validation_clock, evaluation_loop, fit_loop, training_epoch_loop):
            monkeypatch.setattr(module, "time", fake)


class Net(LightningModule):
    def __init__(self, clock):
        super().__init__()
        torch.manual_seed(0)
        self.layers = torch.nn.Sequential(torch.nn.Linear(2, 4), torch.nn.Linear(4, 1))
        self.clock, self.validations = clock, []

    def training_step(self, batch, batch_idx):
        self.clock.now += 1
        return self.layers(batch[0]).pow(2).mean()

    def validation_step(self, batch, batch_idx):
        self.clock.now += 0.5  # which does not count
        self.log("val_loss", self.layers(batch[0]).pow(2).mean())

    def on_validation_end(self):
        if not self.trainer.sanity_checking:
            self.validations.append(self.global_step)

    def configure_optimizers(self):
        optimizer = torch.optim.Adam(self.parameters(), 0.1)
        plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=0, threshold=0.5)
        scheduled = {"scheduler": plateau, "monitor": "val_loss", "strict": False}
        return {"optimizer": optimizer, "lr_scheduler": scheduled}


def loaders():
    data = torch.randn(40, 2, generator=torch.Generator().manual_seed(1))
    return DataLoader(TensorDataset(data), 4), DataLoader(TensorDataset(data[:8]), 4)


def fit(clock, interval, *, lean=True, path=None, **options):
    net = Net(clock)
    options = {
        "max_epochs": 3, "accelerator": "cpu", "val_check_interval": interval,
        "enable_progress_bar": False, **options,
    }  # fmt: skip
    if not lean:
        options |= {"logger": False, "enable_checkpointing": False, "enable_model_summary": False}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        (LeanTrainer if lean else Trainer)(**options).fit(net, *loaders(), ckpt_path=path)
    return net, torch.cat([each.detach().flatten() for each in net.parameters()])


@pytest.mark.parametrize("interval", ["00:00:00:07", timedelta(seconds=7), {"seconds": 7}])
@pytest.mark.parametrize("every", [1, 2, None], ids=lambda every: f"every-{every}")
def test_validations_come_when_lightnings_do(interval, every, monkeypatch):
    options = {"check_val_every_n_epoch": every}
    theirs, weights = fit(Clock(monkeypatch), interval, lean=False, **options)
    ours, same = fit(Clock(monkeypatch), interval, **options)
    assert ours.validations == theirs.validations != []
    assert torch.equal(same, weights)


def test_a_resume_waits_for_the_rest_of_the_time(tmp_path, monkeypatch):
    whole, weights = fit(Clock(monkeypatch), {"seconds": 7})
    policy = CheckpointParams(every_n_steps=1, every_n_epochs=None, keep=0)
    options = {"store": tmp_path, "checkpoint": policy}
    again = fit(Clock(monkeypatch), {"seconds": 7}, **options)
    assert torch.equal(again[1], weights)
    for number, step in enumerate(itertools.chain(range(1, 16, 4), [7, 14, 20])):
        path = tmp_path / f"step-{step:08d}" / "model.ckpt"
        clock = Clock(monkeypatch, begins=1000.0 * number)  # of another boot of the machine
        resumed = fit(clock, {"seconds": 7}, path=path)
        assert torch.equal(resumed[1], weights), step
        assert resumed[0].validations == [each for each in whole.validations if each > step], step


def test_what_is_no_time_is_refused_and_a_time_for_any_world():
    for wrong in ("00:07", "0:0:0:x", {"parsecs": 12}):
        with pytest.raises(Refused, match="which is no time"):
            LeanTrainer(max_epochs=1, val_check_interval=wrong)
    with pytest.raises(Refused, match="some of which are faster"):
        LeanTrainer(max_epochs=1, val_check_interval=timedelta(hours=1), exact="world")


@pytest.mark.slow
def test_processes_whose_clocks_differ_validate_at_the_same_steps(tmp_path):
    done = torchrun(Path(__file__).with_name("clock_ranks.py"), tmp_path)
    assert done.returncode == 0, (done.stdout + done.stderr)[-6000:]
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1))
    assert first == second
    # Seven seconds are over in three steps of the fast one; each sees its two batches of four.
    assert first["whole"] == [[step, 2] for step in range(3, 25, 3)]
    assert first["first"] + first["rest"] == first["whole"]
    # They talk after the first batch, and then where the one that waits longest asks for it.
    assert first["seldom"] == [[step, 2] for step in (6, 11, 16, 21)]
