"""What an optimizer's `step` gets: gradients that are there, or the closure that computes them."""

import pytest
import torch
from lightning.pytorch import LightningModule
from torch.utils.data import DataLoader

from curitorch.external.adapter import LeanTrainer


class Own(torch.optim.Adam):
    """An optimizer of the user's, of which nobody knows what it does with its closure."""


class Net(LightningModule):
    def __init__(self, optimizer, *, hook=False, scheduled=False):
        super().__init__()
        self.layer = torch.nn.Linear(4, 1)
        self.kind, self.hook, self.scheduled = optimizer, hook, scheduled
        self.order = []

    def training_step(self, batch, batch_idx):
        self.order.append("training_step")
        return self.layer(batch).square().mean()

    def on_after_backward(self):
        self.order.append("on_after_backward")

    def on_before_optimizer_step(self, optimizer):
        self.order.append("on_before_optimizer_step")

    def configure_optimizers(self):
        optimizer = self.kind(self.parameters(), lr=0.1)
        optimizer.register_step_post_hook(
            lambda _, arguments, options: self.order.append("closure" in options)
        )
        if self.hook:
            optimizer.register_step_pre_hook(lambda *_: self.order.append("pre-hook"))
        if self.scheduled:
            return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1)]
        return optimizer


@pytest.mark.parametrize(
    ("kind", "options", "first", "closure"),
    [
        (torch.optim.Adam, {}, [], False),
        (torch.optim.SGD, {"scheduled": True}, [], False),
        (torch.optim.Adam, {"hook": True}, ["pre-hook"], True),  # which comes before the loss
        (Own, {}, [], True),
    ],
    ids=["torch's", "with a scheduler", "with a hook before the step", "the user's own"],
)
def test_torchs_optimizers_find_their_gradients_there(kind, options, first, closure):
    net = Net(kind, **options)
    LeanTrainer(accelerator="cpu", max_epochs=1, enable_progress_bar=False).fit(
        net, DataLoader(torch.ones(2, 4), 2)
    )
    hooks = ["training_step", "on_after_backward", "on_before_optimizer_step"]
    assert net.order == [*first, *hooks, closure]


def test_lbfgs_computes_its_gradients_as_often_as_it_likes():
    net = Net(torch.optim.LBFGS)
    LeanTrainer(accelerator="cpu", max_epochs=1, enable_progress_bar=False).fit(
        net, DataLoader(torch.ones(2, 4), 2)
    )
    assert net.order.count("training_step") > 1


def test_gradients_that_a_hook_left_disabled_are_enabled_for_the_step():
    net = Net(torch.optim.Adam)
    net.on_train_batch_start = lambda batch, batch_idx: torch.set_grad_enabled(False) and None
    before = net.layer.weight.detach().clone()
    try:
        LeanTrainer(accelerator="cpu", max_epochs=1, enable_progress_bar=False).fit(
            net, DataLoader(torch.ones(2, 4), 2)
        )
    finally:
        torch.set_grad_enabled(True)
    assert not torch.equal(net.layer.weight, before)
