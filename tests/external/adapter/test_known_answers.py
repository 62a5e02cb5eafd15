"""A model with one weight, whose every loss and weight is known to the last bit.

Its loss is (target - w)**2 and its learning rate 1/4, so each step halves the distance of w to the
target: from 0 towards 1 it is 1 - 2**-n after n steps, which floating-point numbers hold exactly.
"""

import pytest
import torch
from lightning.pytorch import LightningModule
from torch.utils.data import DataLoader

from curitorch.external.adapter import LeanTrainer
from curitorch.external.stop import StopRequest, TrainingStopped


class OneWeight(LightningModule):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.losses, self.rates, self.weights, self.validated = [], [], [], []

    def training_step(self, batch, batch_idx):
        loss = (batch - self.weight).pow(2).mean()
        self.log("loss", loss, on_epoch=True)
        self.losses.append(float(loss.detach()))
        return loss

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", (batch - self.weight).pow(2).mean())

    def on_train_batch_end(self, outputs, batch, batch_idx):
        self.weights.append(float(self.weight.detach()))

    def on_validation_epoch_end(self):
        self.validated.append(float(self.weight.detach()))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.25)


def targets(*values):
    return DataLoader(torch.tensor(values), 1)


def fit(module, loader, **options):
    settings = {"max_epochs": 1, "accelerator": "cpu", "num_sanity_val_steps": 0, **options}
    trainer = LeanTrainer(**settings)
    trainer.fit(module, loader, targets(1.0))
    return trainer


ONES = [1.0] * 8
HALVED = [1 - 2.0**-n for n in range(1, 9)]


def test_each_step_halves_the_distance():
    module = OneWeight()
    trainer = fit(module, targets(*ONES))
    assert module.weights == HALVED
    assert module.losses == [4.0**-n for n in range(8)]
    assert float(trainer.callback_metrics["loss_epoch"]) == sum(module.losses) / 8
    assert float(trainer.callback_metrics["val_loss"]) == 4.0**-8
    assert module.validated == [HALVED[-1]]


def test_accumulated_batches_go_to_their_mean():
    module = OneWeight()
    fit(module, targets(*[1.0, 3.0] * 4), accumulate_grad_batches=2)
    assert module.weights[1::2] == [2 * (1 - 2.0**-n) for n in range(1, 5)]


@pytest.mark.parametrize("algorithm", ["norm", "value"])
def test_a_clipped_gradient_takes_even_steps(algorithm):
    module = OneWeight()
    fit(module, targets(*[8.0] * 8), gradient_clip_val=0.5, gradient_clip_algorithm=algorithm)
    exact = [n / 8 for n in range(1, 9)]
    # a norm is divided by (norm + 1e-6)
    assert module.weights == (exact if algorithm == "value" else pytest.approx(exact, rel=1e-5))


@pytest.mark.parametrize("precision", ["64-true", "bf16-true", "bf16-mixed"])
def test_other_precisions_give_the_same_numbers_where_they_hold_them(precision):
    module = OneWeight()
    fit(module, DataLoader(torch.ones(5), 1), precision=precision)
    assert module.weights == HALVED[:5]


def test_a_scheduler_by_steps_changes_the_step_after():
    class Slower(OneWeight):
        def configure_optimizers(self):
            optimizer = super().configure_optimizers()
            scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 2, 0.5)
            settings = {"scheduler": scheduler, "interval": "step"}
            return {"optimizer": optimizer, "lr_scheduler": settings}

    module = Slower()
    fit(module, targets(*ONES[:4]))
    assert module.weights == [1 / 2, 3 / 4, 13 / 16, 55 / 64]  # halved twice, then three quarters


def test_a_plateau_lowers_the_rate_after_the_epoch_without_progress():
    class Stuck(OneWeight):
        def validation_step(self, batch, batch_idx):
            self.log("val_loss", 1.0)

        def on_train_epoch_end(self):
            self.rates.append(self.trainer.optimizers[0].param_groups[0]["lr"])

        def configure_optimizers(self):
            optimizer = super().configure_optimizers()
            plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=0)
            return {"optimizer": optimizer, "lr_scheduler": plateau, "monitor": "val_loss"}

    module = Stuck()
    fit(module, targets(1.0), max_epochs=4)
    assert module.rates == [0.25, 0.25, 0.125, 0.0625]  # stepped after the hook


@pytest.mark.parametrize("at", range(1, 8))
def test_it_stops_anywhere_and_goes_on(at, tmp_path):
    stop = StopRequest()

    class Stopped(OneWeight):
        def on_train_batch_end(self, outputs, batch, batch_idx):
            stop.reason = "SIGTERM" if batch_idx + 1 == at else None

    with pytest.raises(TrainingStopped, match=f"at step {at}, with a checkpoint saved"):
        fit(Stopped(), targets(*ONES), store=tmp_path, stop=stop)
    module = OneWeight()
    trainer = LeanTrainer(max_epochs=1, accelerator="cpu", store=tmp_path)
    trainer.fit(module, targets(*ONES), targets(1.0), ckpt_path="last")
    assert module.weights == HALVED[at:]
    assert float(trainer.callback_metrics["loss_epoch"]) == sum(4.0**-n for n in range(8)) / 8
    assert float(trainer.callback_metrics["val_loss"]) == 4.0**-8


def test_what_hooks_add_to_a_checkpoint_they_get_back(tmp_path):
    class Remembering(OneWeight):
        seen = None

        def on_save_checkpoint(self, checkpoint):
            checkpoint["mine"] = {"of": 3}

        def on_load_checkpoint(self, checkpoint):
            type(self).seen = checkpoint["mine"]

    fit(Remembering(), targets(*ONES), store=tmp_path)
    trainer = LeanTrainer(max_epochs=2, accelerator="cpu", store=tmp_path)
    trainer.fit(Remembering(), targets(*ONES), ckpt_path="last")
    assert Remembering.seen == {"of": 3}
    assert trainer.global_step == 16
