"""The callback as a drop-in for any Lightning Trainer, without a job or a run directory."""

import signal
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.strategies import FSDPStrategy
from torch.utils.data import DataLoader

from curitorch.external.refused import Refused
from curitorch.external.stores import LocalStore, PeriodicCheckpoint
from curitorch.external.stores.store import CheckpointExists, LeaseLost, StoreError
from curitorch.params import CheckpointParams


class Net(LightningModule):
    """Fails at the batch and in the hook that it is told to."""

    def __init__(self, fail=None, at=None):
        super().__init__()
        self.layers = torch.nn.Sequential(
            torch.nn.Linear(4, 4), torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 1)
        )
        self.fail, self.at = fail, at

    def _maybe_fail(self, hook):
        if (self.fail, self.at) == (hook, self.global_step):
            raise ZeroDivisionError("the model's own mistake")

    def training_step(self, batch, batch_idx):
        loss = self.layers(batch).pow(2).mean()
        self.log("loss", loss)
        self.log("left", -float(self.global_step))
        self._maybe_fail("forward")
        return loss

    def on_after_backward(self):
        self._maybe_fail("backward")

    def on_train_batch_end(self, *args):
        self._maybe_fail("end")

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=0.1)


def trainer(folder, *callbacks, **options):
    return Trainer(
        **{"max_epochs": 2, "logger": False, **options},
        accelerator="cpu",
        default_root_dir=folder,
        callbacks=list(callbacks),
        enable_progress_bar=False,
        enable_model_summary=False,
    )


def loader():
    torch.manual_seed(3)
    return DataLoader(torch.randn(24, 4), 4)  # six steps an epoch


def policy(**settings):
    return CheckpointParams(**{"every_n_epochs": None, "keep": 0, **settings})


def saved_steps(folder):
    return [c.step for c in LocalStore(folder).list()]


def test_it_saves_by_steps_epochs_and_seconds_whichever_comes_first(tmp_path):
    time = iter(range(0, 10_000, 10))
    cases = {
        "steps": (policy(every_n_steps=4), [4, 8, 12]),
        "epochs": (policy(every_n_epochs=1), [6, 12]),
        "both": (policy(every_n_steps=5, every_n_epochs=1), [5, 6, 10, 12]),
        "seconds": (policy(every_n_seconds=25), [3, 6, 9, 12]),
    }
    for name, (when, expected) in cases.items():
        callback = PeriodicCheckpoint(tmp_path / name, when, clock=lambda: next(time))
        trainer(tmp_path, callback).fit(Net(), loader())
        found = saved_steps(tmp_path / name)
        assert found == expected or (name == "seconds" and found[-1] == 12 and len(found) > 3)


def test_the_newest_the_best_and_every_nth_stay(tmp_path):
    keep = policy(
        every_n_steps=1,
        keep=2,
        keep_best=1,
        best_metric="left",
        best_mode="max",
        keep_every_n_steps=5,
    )
    trainer(tmp_path, PeriodicCheckpoint(tmp_path / "c", keep)).fit(Net(), loader())
    assert saved_steps(tmp_path / "c") == [1, 5, 10, 11, 12]


@pytest.mark.parametrize("asynchronous", [False, True])
def test_sidecars_tell_epoch_and_metrics_also_of_what_model_checkpoint_saves(
    tmp_path, asynchronous
):
    callback = PeriodicCheckpoint(
        tmp_path / "c", policy(every_n_epochs=1, asynchronous=asynchronous)
    )
    theirs = ModelCheckpoint(tmp_path / "theirs", every_n_train_steps=6, save_top_k=-1)
    trainer(tmp_path, callback, theirs).fit(Net(), loader())
    first, last = LocalStore(tmp_path / "c").list()
    assert (first.details["epoch"], last.details["epoch"]) == (1, 2)
    assert first.details["metrics"]["left"] == -5.0
    assert first.details["model"]["qualname"] == "Net"
    content = torch.load(theirs.best_model_path, weights_only=True)
    assert content["curitorch_checkpoint"]["metrics"]["left"] == -11.0
    assert content["curitorch_model"]["qualname"] == "Net"


def test_going_on_behind_newer_checkpoints_is_refused_before_the_first_step(tmp_path):
    trainer(tmp_path, PeriodicCheckpoint(tmp_path / "c", policy(every_n_steps=4))).fit(
        Net(), loader()
    )
    again = trainer(tmp_path, PeriodicCheckpoint(tmp_path / "c"), max_epochs=3)
    with pytest.raises(CheckpointExists, match=r"begins at step 0, .* up to step 12"):
        again.fit(Net(), loader())
    again = trainer(tmp_path, PeriodicCheckpoint(tmp_path / "c"), max_epochs=3)
    newest = tmp_path / "c" / "step-00000012" / "model.ckpt"
    again.fit(Net(), loader(), ckpt_path=newest)
    assert again.global_step == 18


@pytest.mark.filterwarnings("ignore:Left out a checkpoint")
def test_one_that_only_another_curitorch_can_read_is_in_the_way_of_a_beginning(tmp_path):
    trainer(tmp_path, PeriodicCheckpoint(tmp_path / "c"), max_epochs=1).fit(Net(), loader())
    sidecar = tmp_path / "c" / "step-00000006.json"
    sidecar.write_text(sidecar.read_text().replace('"schema": 2', '"schema": 3'))
    again = trainer(tmp_path, PeriodicCheckpoint(tmp_path / "c"))
    with pytest.raises(CheckpointExists, match=r"begins at step 0, .* up to step 6"):
        again.fit(Net(), loader())
    assert again.global_step == 0


def test_two_trainings_into_one_store_are_kept_apart(tmp_path):
    with (
        LocalStore(tmp_path / "c").lease("another"),
        pytest.raises(LeaseLost, match="leased to 'another'"),
    ):
        trainer(tmp_path, PeriodicCheckpoint(tmp_path / "c")).fit(Net(), loader())


@pytest.mark.parametrize(("fail", "saved"), [("forward", 4), ("backward", 4), ("end", 3)])
@pytest.mark.parametrize("asynchronous", [False, True])
def test_an_error_leaves_the_last_whole_step_with_buffers_and_position(
    tmp_path, fail, saved, asynchronous
):
    def fit(name, model, **options):
        when = policy(every_n_steps=3, asynchronous=asynchronous)
        trainer(tmp_path, PeriodicCheckpoint(tmp_path / name, when), **options).fit(model, loader())

    def saved_state(name, step):
        path = tmp_path / name / f"step-{step:08d}" / "model.ckpt"
        return torch.load(path, weights_only=True)

    torch.manual_seed(1)
    fit("whole", Net(), max_steps=saved)
    torch.manual_seed(1)
    with pytest.raises(ZeroDivisionError):
        fit("failed", Net(fail, 5 if fail == "end" else 4))
    assert saved_steps(tmp_path / "failed") == ([3, 4] if saved == 4 else [3])
    expected, found = (saved_state(name, saved) for name in ("whole", "failed"))
    for name, value in expected["state_dict"].items():
        assert torch.equal(value, found["state_dict"][name]), name
    moments = [content["optimizer_states"][0]["state"] for content in (expected, found)]
    for number, state in moments[0].items():
        assert all(torch.equal(value, moments[1][number][name]) for name, value in state.items())
    batches = found["loops"]["fit_loop"]["epoch_loop.batch_progress"]["current"]
    assert set(batches.values()) == {saved}


def test_an_error_without_at_error_saves_nothing_more(tmp_path):
    callback = PeriodicCheckpoint(tmp_path / "c", policy(every_n_steps=3, at_error=False))
    with pytest.raises(ZeroDivisionError):
        trainer(tmp_path, callback).fit(Net("forward", 5), loader())
    assert saved_steps(tmp_path / "c") == [3]


class Full(LocalStore):
    """Takes three steps."""

    def put(self, step, files, **options):
        if step >= 4:
            raise StoreError("The quota of 3 is used up.")
        return super().put(step, files, **options)

    def __reduce__(self):
        return Full, (self.root,)


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_store_that_fails_ends_training_and_keeps_what_was_saved(tmp_path, asynchronous):
    when = policy(every_n_steps=2, asynchronous=asynchronous)
    callback = PeriodicCheckpoint(Full(tmp_path / "c"), when)
    fit = trainer(tmp_path, callback)
    with warnings.catch_warnings(), pytest.raises(StoreError, match="quota of 3"):
        warnings.simplefilter("ignore")
        fit.fit(Net(), loader())
    assert saved_steps(tmp_path / "c") == [2]
    assert fit.global_step < 12


def test_a_strategy_that_saves_in_parts_is_refused_at_the_start(tmp_path):
    from curitorch.external.strategies import refuse_own_checkpoints

    with pytest.raises(Refused, match=r"FSDPStrategy lets every process .*state_dict_type='full'"):
        refuse_own_checkpoints(FSDPStrategy(state_dict_type="sharded"))
    refuse_own_checkpoints(FSDPStrategy(state_dict_type="full"))


SCRIPT = """
import sys
sys.path.insert(0, sys.argv[1])
import test_periodic_checkpoint as t
class Slow(t.Net):
    def on_train_batch_end(self, *args):
        print("step", self.global_step, flush=True)
        sys.stdin.readline()
t.trainer(sys.argv[2], t.PeriodicCheckpoint(sys.argv[2] + "/c", t.policy())).fit(Slow(), t.loader())
"""


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_asked_to_stop_a_plain_script_saves_and_ends_as_one_that_was_asked(
    tmp_path, number, status
):
    folder = str(Path(__file__).parent)
    script = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", SCRIPT, folder, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert script.stdout.readline() == "step 1\n"
    script.send_signal(number)
    _, stderr = script.communicate("\n" * 20)
    assert script.returncode == status, stderr
    assert saved_steps(tmp_path / "c") == [1]
    assert "Traceback" not in stderr
