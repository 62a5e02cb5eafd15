"""A lean fit that is asked to stop, or fails, saves what is clean; it goes on from there exactly.

Signals are real: the module sends them to its own process, each at one place of the loop.
"""

import os
import signal

import pytest
import torch
from lightning.pytorch import LightningDataModule, LightningModule
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics import MeanMetric

from curitorch.external.adapter import LeanTrainer
from curitorch.external.journal import Journal, read_journal
from curitorch.external.stop import TrainingStopped
from curitorch.external.stores import LocalStore
from curitorch.params import CheckpointParams


class Net(LightningModule):
    """Does what it is told at a place: `at` is (hook, how often it was called)."""

    def __init__(self, at=None, act=None):
        super().__init__()
        torch.manual_seed(0)
        self.layers = torch.nn.Sequential(
            torch.nn.Linear(2, 4), torch.nn.BatchNorm1d(4), torch.nn.Dropout(0.2),
            torch.nn.Linear(4, 1),
        )  # fmt: skip
        self.mean = MeanMetric()
        self.at, self.act, self.calls = at, act, {}

    def place(self, hook):
        self.calls[hook] = self.calls.get(hook, 0) + 1
        if self.at == (hook, self.calls[hook]):
            self.act()

    def training_step(self, batch, batch_idx):
        loss = self.layers(batch[0]).pow(2).mean()
        self.log("loss", loss, on_step=True, on_epoch=True)
        self.mean.update(loss.detach())
        self.place("training_step")
        return loss

    def on_train_batch_end(self, outputs, batch, batch_idx):
        self.place("on_train_batch_end")

    def on_before_optimizer_step(self, optimizer):
        self.place("on_before_optimizer_step")

    def on_train_epoch_end(self):
        self.log("mean", self.mean.compute())
        self.mean.reset()
        self.place("on_train_epoch_end")

    def validation_step(self, batch, batch_idx):
        self.place("validation_step")
        self.log("val_loss", self.layers(batch[0]).pow(2).mean())

    def configure_optimizers(self):
        optimizer = torch.optim.Adam(self.parameters(), 0.05)
        plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=0, threshold=0.5)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": plateau, "monitor": "val_loss"},
        }


class Data(LightningDataModule):
    """Remembers the exceptions that it was told of."""

    def __init__(self):
        super().__init__()
        self.told = []

    def loader(self):
        data = torch.randn(20, 2, generator=torch.Generator().manual_seed(1))
        return DataLoader(TensorDataset(data), 4, shuffle=True)

    train_dataloader = val_dataloader = loader

    def on_exception(self, exception):
        self.told.append(exception)


@pytest.fixture(autouse=True)
def _handlers():
    """Leave the signals to whoever had them; a fit has to, as well."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    assert before == {number: signal.getsignal(number) for number in before}


def fit(model, folder=None, *, data=None, **options):
    """Train for three epochs of five batches; returns everything that can be compared."""
    store = None if folder is None else LocalStore(folder / "checkpoints")
    policy = options.pop("checkpoint", CheckpointParams(every_n_epochs=None, every_n_steps=None))
    with Journal(folder / "journal.jsonl") if folder else Nothing() as journal:
        trainer = LeanTrainer(
            max_epochs=3, accelerator="cpu", seed=5, log_every_n_steps=1,
            store=store, checkpoint=policy, journal=journal, **options,
        )  # fmt: skip
        trainer.fit(model, datamodule=data or Data(), ckpt_path="last" if store else None)
    fitted = trainer.last_fit
    return {
        "weights": {name: value.clone() for name, value in model.state_dict().items()},
        "optimizers": [each.state_dict() for each in fitted.trainer.optimizers],
        "schedulers": [c.scheduler.state_dict() for c in fitted.trainer.lr_scheduler_configs],
        "metrics": {name: float(value) for name, value in trainer.callback_metrics.items()},
        "step": trainer.global_step,
    }


class Nothing:
    """No journal."""

    def __enter__(self):
        return None

    def __exit__(self, *exception):
        pass


def same(one, other):
    if isinstance(one, torch.Tensor):
        return one.equal(other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[k], other[k]) for k in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


@pytest.fixture(scope="module")
def whole():
    return {every: fit(Net(), accumulate_grad_batches=every) for every in (1, 2)}


def send(number):
    return lambda: os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize(
    "place",
    [
        ("training_step", 1),
        ("training_step", 7),
        ("on_train_batch_end", 5),
        ("validation_step", 4),  # after two of the sanity check: in the first epoch's
        ("validation_step", 12),
        ("on_train_epoch_end", 1),
    ],
)
def test_a_stopped_fit_goes_on_as_if_it_had_not_been_stopped(place, number, tmp_path, whole):
    data = Data()
    with pytest.raises(TrainingStopped) as stopped:
        fit(Net(place, send(number)), tmp_path, data=data)
    assert stopped.value.saved
    assert data.told == [stopped.value]
    assert same(fit(Net(), tmp_path), whole[1])
    events = read_journal(tmp_path / "journal.jsonl")
    (stop,) = [each for each in events if each["event"] == "stop"]
    assert (stop["step"], stop["reason"]) == (stopped.value.step, signal.Signals(number).name)


def test_a_stop_within_a_validation_does_not_wait_for_its_end(tmp_path):
    model = Net(("validation_step", 4), send(signal.SIGTERM))
    with pytest.raises(TrainingStopped):
        fit(model, tmp_path)
    assert model.calls["validation_step"] == 4


@pytest.mark.parametrize("call", [1, 4, 8])
def test_a_stop_within_an_accumulation_saves_at_its_end(call, tmp_path, whole):
    model = Net(("training_step", call), send(signal.SIGTERM))
    with pytest.raises(TrainingStopped) as stopped:
        fit(model, tmp_path, accumulate_grad_batches=2)
    assert model.calls["training_step"] in (2, 4, 9)  # the window's end; after 8, a validation
    assert stopped.value.saved
    assert same(fit(Net(), tmp_path, accumulate_grad_batches=2), whole[2])


def test_a_second_ctrl_c_ends_at_once(tmp_path):
    def twice():
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        fit(Net(("training_step", 3), twice), tmp_path)


def test_a_stop_without_a_store_ends_the_fit(tmp_path):
    with pytest.raises(TrainingStopped) as stopped:
        fit(Net(("training_step", 3), send(signal.SIGTERM)))
    assert (stopped.value.step, stopped.value.saved) == (3, False)


class Broken(Exception):
    """What a hook raises."""


def fail():
    raise Broken


@pytest.mark.parametrize(
    "place",
    [("training_step", 4), ("training_step", 6), ("on_train_batch_end", 1), ("validation_step", 9)],
)
def test_after_an_error_the_last_clean_step_is_saved(place, tmp_path, whole):
    data = Data()
    with pytest.raises(Broken) as raised:
        fit(Net(place, fail), tmp_path, data=data)
    assert data.told == [raised.value]
    saved = [each.step for each in LocalStore(tmp_path / "checkpoints").list()]
    before = {("training_step", 4): [3], ("training_step", 6): [5]}
    assert saved == before.get(place, [])  # an error behind a step leaves nothing clean
    assert same(fit(Net(), tmp_path), whole[1])


def test_after_an_error_behind_the_gradients_nothing_is_saved(tmp_path):
    with pytest.raises(Broken):
        fit(Net(("on_before_optimizer_step", 4), fail), tmp_path)
    assert [each.step for each in LocalStore(tmp_path / "checkpoints").list()] == []


def test_killed_fits_go_on_from_the_newest_checkpoint(tmp_path, whole):
    def killed():
        raise SystemExit(9)  # neither saved nor stopped: as after a kill, what is there is there

    policy = CheckpointParams(every_n_steps=2, every_n_epochs=None)
    for call in (4, 3, 7):
        with pytest.raises(SystemExit):
            fit(Net(("training_step", call), killed), tmp_path, checkpoint=policy)
    assert same(fit(Net(), tmp_path, checkpoint=policy), whole[1])
