"""The thin bases: what they ask for, and that both trainers take them."""

import warnings

import pytest
import torch
from lightning.pytorch import Trainer
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from curitorch.external.adapter import LeanDataModule, LeanModule, LeanTrainer
from curitorch.external.adapter.lean_data_module import Loader
from curitorch.external.adapter.lean_module import Scheduler
from curitorch.external.adapter.refusals import UnsupportedProject
from curitorch.external.refused import Refused


class Line(LeanModule, loss="mse_loss"):
    def __init__(self, lr=0.1):
        super().__init__()
        self.save_hyperparameters()
        self.layer = torch.nn.Linear(2, 1)

    def forward(self, x):
        return self.layer(x)

    def measure(self, outputs, targets):
        return {"mae": (outputs - targets).abs().mean()}

    def make_optimizer(self):
        return torch.optim.Adam(self.parameters(), lr=self.hparams.lr)

    def make_scheduler(self, optimizer):
        plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=0, factor=0.5)
        return Scheduler(scheduler=plateau, monitor="val_loss")


def samples(count=40):
    x = torch.randn(count, 2, generator=torch.Generator().manual_seed(1))
    return TensorDataset(x, x.sum(1, keepdim=True))


class Points(LeanDataModule):
    def train_data(self):
        return Loader(dataset=samples(), shuffle=False)

    def val_data(self):
        return samples(10)

    def test_data(self):
        return [samples(10), Loader(dataset=samples(6), batch_size=3, drop_last=True)]


def quiet(**options):
    return Trainer(
        accelerator="cpu",
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        logger=False,
        **options,
    )


def test_both_trainers_train_it_to_the_same_weights():
    ended = []
    for train in (
        lambda module, data: quiet(max_epochs=4).fit(module, datamodule=data),
        lambda module, data: LeanTrainer(max_epochs=4, accelerator="cpu").fit(module, data),
    ):
        torch.manual_seed(0)
        module = Line()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            train(module, Points(batch_size=8))
        metrics = {n: float(v) for n, v in module.trainer.callback_metrics.items()}
        ended.append((module.state_dict(), metrics))
    (lightning, logged), (lean, lean_logged) = ended
    assert all(torch.equal(lightning[name], lean[name]) for name in lightning)
    assert lean_logged == logged
    assert set(logged) == {"train_loss", "train_mae", "val_loss", "val_mae"}
    assert logged["val_loss"] < 1


def test_lightning_tests_it_and_predicts_with_it():
    trainer, module, data = quiet(), Line(), Points(batch_size=5)
    first, second = trainer.test(module, data, verbose=False)
    assert "test_loss/dataloader_idx_0" in first
    assert "test_mae/dataloader_idx_1" in second
    predicted = trainer.predict(module, DataLoader(samples(4), 2))
    assert [tuple(each.shape) for each in predicted] == [(2, 1), (2, 1)]
    bare = trainer.predict(module, DataLoader(torch.zeros(4, 2), 2))
    assert len(bare) == 2


def test_a_loss_of_its_own_goes_before_a_picked_one():
    class Own(Line, loss="l1_loss"):
        def loss(self, outputs, targets):
            return super().loss(outputs, targets) * 2

    own, other = Own(), torch.ones(3, 1)
    assert float(own.loss(torch.zeros(3, 1), other)) == 2
    assert float(Line().loss(torch.zeros(3, 1), 3 * other)) == 9


def test_a_loss_that_there_is_not_is_refused_where_the_class_is_written():
    with pytest.raises(Refused, match=r"loss is 'l3_loss', expected one of .*mse_loss"):
        type("Net", (LeanModule,), {}, loss="l3_loss")


def test_hooks_that_nobody_calls_are_refused_where_the_class_is_written():
    with pytest.raises(UnsupportedProject, match=r"test_lean_modules.py:\d+: Net.training_epoch"):

        class Net(Line):
            def training_epoch_end(self, outputs):
                return None

    with pytest.raises(UnsupportedProject, match=r"Data.on_save_checkpoint: .*state_dict"):

        class Data(Points):
            def on_save_checkpoint(self, checkpoint):
                return None


def test_what_is_missing_is_said_when_one_is_made():
    class NoLoss(LeanModule):
        def make_optimizer(self):
            return torch.optim.SGD(self.parameters())

    class NoOptimizer(LeanModule, loss="mse_loss"):
        pass

    class NoData(LeanDataModule):
        pass

    with pytest.raises(UnsupportedProject, match="NoLoss has no loss"):
        NoLoss()
    with pytest.raises(UnsupportedProject, match="Define make_optimizer"):
        NoOptimizer()
    with pytest.raises(UnsupportedProject, match="Define train_data"):
        NoData()


def test_a_step_of_its_own_needs_no_loss():
    class Own(Line):
        def training_step(self, batch, batch_idx):
            return self(batch[0]).sum()

    assert Own().training_step(next(iter(DataLoader(samples(), 2))), 0).ndim == 0


def test_loaders_are_as_described():
    class Described(LeanDataModule):
        def train_data(self):
            return Loader(dataset=samples(), batch_size=4, workers=1, persistent_workers=True)

    data = Described(batch_size=16, workers=2)
    train = data.train_dataloader()
    assert (train.batch_size, train.num_workers, train.persistent_workers) == (4, 1, True)
    assert type(train.sampler).__name__ == "RandomSampler"
    assert (data.val_dataloader(), data.test_dataloader()) == ([], [])
    val = Points(batch_size=16, workers=2).val_dataloader()
    assert (val.batch_size, val.num_workers) == (16, 2)
    assert type(val.sampler).__name__ == "SequentialSampler"


def test_an_iterable_data_set_orders_itself():
    class Stream(IterableDataset):
        def __iter__(self):
            return iter(torch.arange(3))

    class Data(LeanDataModule):
        def train_data(self):
            return Stream()

    assert len(list(Data(batch_size=2).train_dataloader())) == 2


@pytest.mark.parametrize("lean", [False, True], ids=["lightning", "lean"])
def test_data_without_validation_train_as_well(lean):
    class OnlyTrain(LeanDataModule):
        def train_data(self):
            return samples()

    class Free(Line):
        def make_scheduler(self, optimizer):
            return torch.optim.lr_scheduler.StepLR(optimizer, 1)

    module = Free()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if lean:
            LeanTrainer(max_epochs=1, accelerator="cpu").fit(module, OnlyTrain())
        else:
            quiet(max_epochs=1).fit(module, OnlyTrain())
    assert module.trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(0.01)
    assert "val_loss" not in module.trainer.callback_metrics
