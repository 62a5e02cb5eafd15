"""A lean fit trains what the Trainer trains, bit by bit, and goes on as if uninterrupted."""

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from torch.utils.data import DataLoader, TensorDataset

from curitorch.external.adapter import LeanTrainer
from curitorch.external.exact.exact_data import exact_data
from curitorch.external.stores import LocalStore
from curitorch.params import CheckpointParams


class Net(LightningModule):
    """Two layers, dropout, a scheduler, and values logged by step and by epoch."""

    def __init__(self, width: int = 8):
        super().__init__()
        self.save_hyperparameters()
        torch.manual_seed(0)
        self.layers = torch.nn.Sequential(
            torch.nn.Linear(2, width), torch.nn.Dropout(0.3), torch.nn.Linear(width, 1)
        )

    def training_step(self, batch, batch_idx):
        loss = self.layers(batch[0]).pow(2).mean()
        self.log("loss", loss, on_step=True, on_epoch=True)
        return loss

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", self.layers(batch[0]).pow(2).mean())

    def configure_optimizers(self):
        optimizer = torch.optim.Adam(self.parameters(), 0.1)
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)]


def loader():
    data = torch.randn(18, 2, generator=torch.Generator().manual_seed(1))
    return DataLoader(TensorDataset(data), 4, shuffle=True)


def lightning(model, **options):
    trainer = Trainer(
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        **{"max_epochs": 2, **options},
    )
    return trainer, exact_data((loader(), loader()), seed=3)


def lean(**options):
    return LeanTrainer(accelerator="cpu", seed=3, **{"max_epochs": 2, **options})


def weights(model):
    return torch.cat([each.detach().flatten() for each in model.parameters()])


def test_a_lean_fit_ends_with_the_weights_and_values_of_lightnings_trainer():
    ours, theirs = Net(), Net()
    trainer, data = lightning(theirs)
    trainer.fit(theirs, data)
    mine = lean()
    mine.fit(ours, loader(), loader())
    assert weights(ours).equal(weights(theirs))
    assert mine.callback_metrics == trainer.callback_metrics
    assert (mine.global_step, mine.current_epoch) == (trainer.global_step, trainer.current_epoch)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Every step of a lean fit, and what it ended with."""
    store = LocalStore(tmp_path_factory.mktemp("store"))
    model = Net()
    policy = CheckpointParams(every_n_steps=1, every_n_epochs=None, keep=0)
    trainer = lean(store=store, checkpoint=policy)
    trainer.fit(model, loader(), loader())
    return store, weights(model), dict(trainer.callback_metrics)


@pytest.mark.parametrize("step", [1, 4, 5, 6, 9])
def test_a_fit_resumed_after_any_step_ends_as_one_that_was_not(saved, step):
    store, expected, metrics = saved
    model = Net()
    trainer = lean()
    trainer.fit(model, loader(), loader(), ckpt_path=store.root / f"step-{step:08d}/model.ckpt")
    assert weights(model).equal(expected)
    assert trainer.callback_metrics == metrics


@pytest.mark.parametrize("step", [3, 5])
def test_lightnings_trainer_goes_on_from_a_lean_checkpoint(saved, step):
    store, expected, metrics = saved
    model = Net()
    trainer, data = lightning(model)
    trainer.fit(model, data, ckpt_path=store.root / f"step-{step:08d}/model.ckpt")
    assert weights(model).equal(expected)
    assert trainer.callback_metrics == metrics


def test_load_from_checkpoint_opens_a_lean_checkpoint(saved):
    store, expected, _ = saved
    model = Net.load_from_checkpoint(store.root / "step-00000010/model.ckpt")
    assert weights(model).equal(expected)


def test_a_bar_shows_the_epoch_its_batches_and_what_is_logged_for_it(capsys, monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)  # of a narrow terminal, which would cut the line

    class Shown(Net):
        def training_step(self, batch, batch_idx):
            loss = super().training_step(batch, batch_idx)
            self.log("seen", float(batch_idx), prog_bar=True)
            return loss

    lean().fit(Shown(), loader(), loader())
    lines = capsys.readouterr().err.split("\r")
    assert "epoch 0: 100%" in "".join(lines)
    assert "5/5" in lines[-1] and "epoch 1" in lines[-1] and "seen=4" in lines[-1]
    lean(enable_progress_bar=False).fit(Shown(), loader(), loader())
    assert capsys.readouterr().err == ""
