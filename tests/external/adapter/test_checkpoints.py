"""Lean fits go on from each checkpoint of Lightning's, and Lightning's Trainer from ours.

The trainings, and what of them is compared, are those of resume_matrix.py.
"""

import warnings
from pathlib import Path

import pytest
import resume_matrix as matrix
import torch
from lightning.pytorch import LightningDataModule, LightningModule, Trainer, seed_everything
from matrix_cases import CASES
from torch.utils.data import DataLoader, TensorDataset

from curitorch.external.adapter import LeanTrainer
from curitorch.external.refused import Refused
from curitorch.external.stores import LocalStore
from curitorch.params import CheckpointParams


@pytest.fixture(autouse=True)
def _quietly():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def fit(case, *, resume=None, store=None, net_class=matrix.NetWithBatchEnd):
    """Train a case of the matrix on the lean loop, as `matrix.fit` does by Lightning's."""
    matrix.quiet()
    case = {"data": "plain", "validation": 1, **case}
    seed_everything(1, verbose=False)
    net, recorder = net_class(**case.get("net", {})), matrix.Recorder()
    options = case.get("loader", {})
    validation = [
        matrix.data_of("plain", augmented=options.get("augmented", False))
        for _ in range(case["validation"])
    ]
    stopping = {}
    for callback in case.get("callbacks", list)():
        stopping = {name: getattr(callback, name) for name in ("monitor", "patience", "mode")}
        stopping["min_delta"] = abs(callback.min_delta)
    settings = {"max_epochs": 2, "log_every_n_steps": 1, "num_sanity_val_steps": 1}
    trainer = LeanTrainer(
        **{**settings, **case.get("trainer", {}), **stopping},
        accelerator="cpu",
        seed=3,
        logger=recorder,
        store=store,
        checkpoint=CheckpointParams(every_n_steps=1, every_n_epochs=None, keep=0),
    )
    train = matrix.data_of(case["data"], **options)
    trainer.fit(net, train, validation or None, ckpt_path=resume)
    return matrix.outcome(trainer.last_fit.trainer, recorder)


def assert_resumed(whole, resumed, file):
    assert not matrix.differences(whole, resumed, file), file


QUICK = ["metrics", "random hooks", "plateau by steps", "a sampler with a state"]
SLOW = [
    *("augmentation and noise", "accumulation", "plateau by epochs of a mean of training"),
    *("early stopping", "validation over epochs", "a limit of steps", "a stream"),
    *("several validation loaders", "optimization by hand", "an epoch left early"),
]


@pytest.mark.parametrize("name", [*QUICK, *(pytest.param(n, marks=pytest.mark.slow) for n in SLOW)])
def test_lightnings_own_checkpoints_go_on_here(name, tmp_path):
    case = CASES[name]
    savers = matrix.model_checkpoints(tmp_path)
    whole = matrix.fit(case, savers=savers, net_class=matrix.Net)
    files = sorted(tmp_path.glob("*.ckpt"))
    assert len(files) > 4
    for file in files[:: 3 if name in QUICK else 1]:
        assert_resumed(whole, fit(case, resume=file, net_class=matrix.Net), file)


@pytest.mark.parametrize("name", [*QUICK, *(pytest.param(n, marks=pytest.mark.slow) for n in SLOW)])
def test_our_lightning_engine_and_the_lean_loop_go_on_from_each_other(name, tmp_path):
    case = CASES[name]
    theirs, ours = tmp_path / "theirs", tmp_path / "ours"
    whole = matrix.fit(case, savers=[matrix.every_step(theirs)])
    assert matrix.same(whole, fit(case, store=LocalStore(ours)))
    every = 3 if name in QUICK else 1
    for step in range(1, whole["step"], every):
        file = f"step-{step:08d}/model.ckpt"
        if not (ours / file).exists():
            continue  # manual optimization steps twice in a batch
        from_theirs = fit(case, resume=theirs / file)
        assert_resumed(whole, from_theirs, theirs / file)
        from_ours = matrix.fit(case, resume=ours / file)
        from_ours["entries"] = [e for e in from_ours["entries"] if e[0] != "on_train_start"]
        from_theirs["entries"] = [e for e in from_theirs["entries"] if e[0] != "on_train_start"]
        assert matrix.same(from_ours, from_theirs), file


class Counting(LightningDataModule):
    """Has a state."""

    def __init__(self, batch: int = 4):
        super().__init__()
        self.save_hyperparameters()
        self.count = 0

    def train_dataloader(self):
        self.count += 1
        data = torch.randn(16, 2, generator=torch.Generator().manual_seed(0))
        return DataLoader(TensorDataset(data), self.hparams.batch)

    def state_dict(self):
        return {"count": self.count}

    def load_state_dict(self, state):
        self.count = state["count"]


class Net(LightningModule):
    """Adds to its checkpoints, and changes what it loads."""

    def __init__(self, width: int = 3, extra=None):
        super().__init__()
        self.save_hyperparameters(ignore=["extra"])
        self.layer = torch.nn.Linear(2, width)
        self.extra, self.seen = extra, None

    def training_step(self, batch, batch_idx):
        return self.layer(batch[0]).pow(2).mean()

    def on_save_checkpoint(self, checkpoint):
        checkpoint["mine"] = {"step": self.global_step, "extra": self.extra}

    def on_load_checkpoint(self, checkpoint):
        self.seen = checkpoint["mine"]

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


def train(net, folder, data=None, **options):
    policy = CheckpointParams(every_n_steps=2, every_n_epochs=None, keep=0)
    settings = {"max_epochs": 2, "store": folder, "checkpoint": policy, **options}
    trainer = LeanTrainer(accelerator="cpu", **settings)
    trainer.fit(net, datamodule=data or Counting(), ckpt_path="last")
    return trainer


def test_hooks_and_states_of_module_and_data_travel_with_a_checkpoint(tmp_path):
    train(Net(width=5), tmp_path, max_steps=4, max_epochs=None)
    file = tmp_path / "step-00000004/model.ckpt"
    content = torch.load(file, weights_only=True)
    assert content["mine"] == {"step": 4, "extra": None}
    assert content["Counting"] == {"count": 1}
    assert content["hyper_parameters"] == {"width": 5}
    assert content["datamodule_hyper_parameters"] == {"batch": 4}
    assert Net.load_from_checkpoint(file).hparams.width == 5
    assert Counting.load_from_checkpoint(file).hparams.batch == 4
    net, data = Net(width=5), Counting()
    train(net, tmp_path, data)
    assert net.seen == {"step": 4, "extra": None}
    assert data.count == 2


def test_plain_lightning_opens_a_lean_checkpoint(tmp_path):
    train(Net(), tmp_path)
    file = tmp_path / "step-00000004/model.ckpt"
    options = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = Trainer(max_epochs=3, accelerator="cpu", enable_checkpointing=False, **options)
    trainer.fit(Net(), datamodule=Counting(), ckpt_path=file)
    assert (trainer.global_step, trainer.current_epoch) == (12, 3)


def test_what_needs_trust_is_opened_only_with_it(tmp_path):
    train(Net(extra=Path("x")), tmp_path, max_steps=2, max_epochs=None)
    with pytest.raises(Refused, match="trusted=True"):
        train(Net(), tmp_path)
    trusting = Net()
    train(trusting, tmp_path, trusted=True)
    assert trusting.seen["extra"] == Path("x")


def test_a_file_of_weights_alone_is_refused(tmp_path):
    file = tmp_path / "weights.ckpt"
    torch.save({"state_dict": Net().state_dict(), "pytorch-lightning_version": "2.6.0"}, file)
    trainer = LeanTrainer(max_epochs=1, accelerator="cpu")
    with pytest.raises(Refused, match="holds only weights"):
        trainer.fit(Net(), datamodule=Counting(), ckpt_path=file)


def test_a_checkpoint_of_more_epochs_is_refused(tmp_path):
    train(Net(), tmp_path)
    with pytest.raises(Refused, match="2 whole epochs, and max_epochs is 1"):
        train(Net(), tmp_path, max_epochs=1)


def test_last_needs_a_store():
    with pytest.raises(Refused, match="needs a store"):
        LeanTrainer(accelerator="cpu", max_epochs=1).fit(
            Net(), datamodule=Counting(), ckpt_path="last"
        )


def test_a_finished_training_goes_no_further(tmp_path):
    train(Net(), tmp_path)
    net = Net()
    trainer = train(net, tmp_path)
    assert (trainer.global_step, trainer.current_epoch) == (8, 2)


def test_the_best_checkpoints_stay_by_the_policy(tmp_path):
    class Logging(Net):
        def training_step(self, batch, batch_idx):
            loss = super().training_step(batch, batch_idx)
            self.log("distance", torch.tensor(float(abs(self.global_step - 2))))
            return loss

    policy = CheckpointParams(
        every_n_steps=1, every_n_epochs=None, keep=1, keep_best=1, best_metric="distance"
    )
    train(Logging(), tmp_path, checkpoint=policy)
    assert [each.step for each in LocalStore(tmp_path).list()] == [3, 8]
