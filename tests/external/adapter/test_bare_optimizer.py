"""Steps and zeroing that leave out what torch does for profilers and hooks, if there are none."""

import functools

import pytest
import torch
from lightning.pytorch import LightningModule
from torch.optim.optimizer import register_optimizer_step_post_hook
from torch.utils.data import DataLoader

from curitorch.external.adapter import LeanTrainer

STEPS = 3
DATA = torch.randn(STEPS * 2, 4, generator=torch.Generator().manual_seed(1))


class OwnZeroing(torch.optim.Adam):
    calls = 0

    def zero_grad(self, set_to_none=True):
        self.calls += 1
        super().zero_grad(set_to_none)


class Net(LightningModule):
    def __init__(self, make):
        super().__init__()
        torch.manual_seed(3)
        self.first, self.second = torch.nn.Linear(4, 4), torch.nn.Linear(4, 1)
        groups = [{"params": self.first.parameters()}, {"params": self.second.parameters()}]
        self.made = make(groups)

    def training_step(self, batch, batch_idx=0):
        return self.second(self.first(batch).relu()).square().mean()

    def configure_optimizers(self):
        return self.made


def fit(make=torch.optim.Adam):
    net = Net(make)
    LeanTrainer(accelerator="cpu", max_epochs=1, enable_progress_bar=False).fit(
        net, DataLoader(DATA, 2)
    )
    return net


@pytest.mark.parametrize(
    "make",
    [
        torch.optim.Adam,
        functools.partial(torch.optim.SGD, lr=0.1, momentum=0.9, nesterov=True),
        functools.partial(torch.optim.AdamW, foreach=True),
        functools.partial(torch.optim.AdamW, fused=True),
        torch.optim.Adagrad,
        torch.optim.RMSprop,
        OwnZeroing,
    ],
)
def test_weights_are_those_of_a_plain_loop(make):
    net = Net(make)
    for batch in DATA.split(2):
        net.made.zero_grad()
        net.training_step(batch).backward()
        net.made.step()
    for plain, lean in zip(net.parameters(), fit(make).parameters(), strict=True):
        assert torch.equal(plain, lean)


def test_torch_tells_nobody_of_a_step_where_nobody_asks(monkeypatch):
    told = []

    class Told(torch.autograd.profiler.record_function):
        def __init__(self, name, args=None):
            told.append(name)
            super().__init__(name, args)

    monkeypatch.setattr(torch.autograd.profiler, "record_function", Told)
    net = fit()
    assert not [name for name in told if name.startswith("Optimizer.")]
    net.made.step()
    assert told[-1] == "Optimizer.step#Adam.step"


def test_a_profiler_sees_steps_and_zeroing():
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiler:
        fit()
    counts = {each.key: each.count for each in profiler.key_averages()}
    assert counts["Optimizer.step#Adam.step"] == STEPS
    assert counts["Optimizer.zero_grad#Adam.zero_grad"] == STEPS


def counting(function, calls):
    @functools.wraps(function)
    def counted(*arguments, **options):
        calls.append(function)
        return function(*arguments, **options)

    return counted


@pytest.mark.parametrize("name", ["step", "zero_grad"])
def test_what_somebody_wrapped_is_called(name, monkeypatch):
    calls = []
    fit()  # torch wraps the class by itself as the first of its optimizers is made
    monkeypatch.setattr(torch.optim.Adam, name, counting(getattr(torch.optim.Adam, name), calls))
    fit()
    assert len(calls) == STEPS


@pytest.mark.parametrize("name", ["step", "zero_grad"])
def test_what_somebody_wrapped_of_one_optimizer_is_called(name):
    calls = []

    def made(groups):
        optimizer = torch.optim.Adam(groups)
        setattr(optimizer, name, counting(getattr(optimizer, name), calls))
        return optimizer

    fit(made)
    assert len(calls) == STEPS


def test_an_own_zeroing_is_called():
    assert fit(OwnZeroing).made.calls == STEPS


def test_hooks_behind_a_step_are_called_of_one_optimizer_and_of_all():
    seen = []

    def made(groups):
        optimizer = torch.optim.Adam(groups)
        optimizer.register_step_post_hook(lambda *_: seen.append("own"))
        return optimizer

    fit(made)
    handle = register_optimizer_step_post_hook(lambda *_: seen.append("all"))
    try:
        fit()
    finally:
        handle.remove()
    assert seen == ["own"] * STEPS + ["all"] * STEPS


def test_a_hook_that_comes_during_the_fit_is_called_from_then_on():
    class Late(Net):
        seen = 0

        def on_train_batch_end(self, outputs, batch, batch_idx):
            if batch_idx == 0:
                self.made.register_step_post_hook(lambda *_: setattr(self, "seen", self.seen + 1))

    net = Late(torch.optim.Adam)
    LeanTrainer(accelerator="cpu", max_epochs=1, enable_progress_bar=False).fit(
        net, DataLoader(DATA, 2)
    )
    assert net.seen == STEPS - 1


def test_a_scheduler_finds_that_the_optimizer_stepped(recwarn):
    class Scheduled(Net):
        def configure_optimizers(self):
            scheduler = torch.optim.lr_scheduler.StepLR(self.made, 1)
            return [self.made], [{"scheduler": scheduler, "interval": "step"}]

    net = Scheduled(torch.optim.Adam)
    LeanTrainer(accelerator="cpu", max_epochs=1, enable_progress_bar=False).fit(
        net, DataLoader(DATA, 2)
    )
    assert not [each for each in recwarn if "lr_scheduler.step()" in str(each.message)]
    assert net.made.param_groups[0]["lr"] == pytest.approx(1e-3 * 0.1**STEPS)
