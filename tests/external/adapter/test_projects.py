"""Projects as Lightning's users write them, through both engines: the same weights and values."""

import importlib.util
import warnings
from pathlib import Path

import pytest
import torch
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.loggers.logger import DummyLogger
from torch.utils.data import DataLoader

from curitorch.external.adapter import LeanTrainer
from curitorch.external.exact.exact_data import exact_data
from curitorch.external.refused import Refused
from curitorch.external.stop import StopRequest, TrainingStopped

PROJECTS = ["classifier", "autoencoder", "gan", "rnn", "many_metrics"]
FOLDER = Path(__file__).parent / "projects"


class Remembering(DummyLogger):
    def __init__(self):
        super().__init__()
        self.logged = []

    def log_metrics(self, metrics, step=None):
        self.logged.append((step, dict(metrics)))


def project(name):
    spec = importlib.util.spec_from_file_location(f"projects_{name}", FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def made(source):
    torch.manual_seed(11)
    return source.make()


def by_lightning(source, logger):
    module, data = made(source)
    trainer = Trainer(
        accelerator="cpu",
        logger=logger,
        log_every_n_steps=2,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        **source.OPTIONS,
    )
    trainer.fit(module, datamodule=exact_data(module if data is None else data, seed=5))
    return module, trainer


def lean(source, logger=None, **options):
    settings = {"accelerator": "cpu", "logger": logger, "log_every_n_steps": 2, "seed": 5}
    return LeanTrainer(**settings, **source.OPTIONS, **options)


def fit(trainer, module, data, **options):
    if data is None or isinstance(data, LightningDataModule):
        trainer.fit(module, datamodule=data, **options)
    else:
        trainer.fit(module, *data, **options)


def same(one: LightningModule, other: LightningModule) -> bool:
    states = one.state_dict(), other.state_dict()
    return states[0].keys() == states[1].keys() and all(
        torch.equal(states[0][name], states[1][name]) for name in states[0]
    )


@pytest.fixture(autouse=True)
def quietly():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@pytest.mark.parametrize("name", PROJECTS)
def test_both_engines_end_with_the_same_weights_and_log_the_same(name):
    source = project(name)
    theirs, ours = Remembering(), Remembering()
    expected, lightning = by_lightning(source, theirs)
    module, data = made(source)
    before = {name: each.clone() for name, each in module.state_dict().items()}
    trainer = lean(source, ours)
    fit(trainer, module, data)
    assert same(expected, module)
    assert any(not torch.equal(each, before[name]) for name, each in module.state_dict().items())
    assert trainer.global_step == lightning.global_step
    assert trainer.callback_metrics == lightning.callback_metrics
    assert [(step, list(each)) for step, each in ours.logged] == [
        (step, list(each)) for step, each in theirs.logged
    ]
    assert ours.logged == theirs.logged
    assert len(ours.logged) > 4


@pytest.mark.parametrize("name", PROJECTS)
def test_an_interrupted_project_ends_as_one_that_was_not(name, tmp_path):
    source = project(name)
    whole, data = made(source)
    uninterrupted = lean(source)
    fit(uninterrupted, whole, data)

    stop = StopRequest()
    module, data = made(source)
    own = module.on_train_batch_end

    def on_train_batch_end(outputs, batch, batch_idx):
        own(outputs, batch, batch_idx)
        if module.global_step >= uninterrupted.global_step // 2:
            stop.reason = "SIGTERM"

    module.on_train_batch_end = on_train_batch_end
    with pytest.raises(TrainingStopped):
        fit(lean(source, store=tmp_path, stop=stop), module, data)
    module, data = made(source)
    trainer = lean(source, store=tmp_path)
    fit(trainer, module, data, ckpt_path="last")
    assert same(whole, module)
    assert trainer.global_step == uninterrupted.global_step
    assert trainer.callback_metrics == uninterrupted.callback_metrics


class Line(LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(2, 1)

    def training_step(self, batch, batch_idx):
        loss = self.layer(batch).pow(2).mean()
        self.log("loss", loss)
        return loss

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def test_a_compiled_module_is_trained_as_it_is_uncompiled():
    trained = []
    for compiles in (False, True):
        torch.manual_seed(11)
        module = Line()
        given = torch.compile(module, backend="eager") if compiles else module
        trainer = LeanTrainer(max_epochs=2, accelerator="cpu")
        trainer.fit(given, DataLoader(torch.ones(12, 2), 4))
        trained.append((module, trainer.callback_metrics))
    assert same(trained[0][0], trained[1][0])
    assert trained[0][1] == trained[1][1]


def test_what_is_no_lightning_module_is_refused():
    with pytest.raises(Refused, match=r"got a torch.nn.modules.linear.Linear, expected a Lightn"):
        LeanTrainer(max_epochs=1).fit(torch.nn.Linear(2, 1), [])
