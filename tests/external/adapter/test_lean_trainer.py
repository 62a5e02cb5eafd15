"""The trainer program on the lean loop: the same options, run directory, journal and weights."""

import json
import os
import subprocess
import sys
import textwrap

import pytest
import torch
from click.testing import CliRunner

from curitorch.external.engine import engines
from curitorch.external.lean_trainer import main as lean_main
from curitorch.external.rundir import TrainingRun
from curitorch.external.trainer import main as own_main
from curitorch.stages.report import run_report

MODULE = """
    import torch
    from lightning.pytorch import LightningModule, LightningDataModule
    from torch.utils.data import DataLoader, TensorDataset

    class Net(LightningModule):
        def __init__(self, width: int = 2):
            super().__init__()
            self.save_hyperparameters()
            self.layer = torch.nn.Sequential(
                torch.nn.Linear(width, 8), torch.nn.Dropout(0.3), torch.nn.Linear(8, 1)
            )

        def training_step(self, batch, batch_idx):
            x, y = batch
            loss = torch.nn.functional.mse_loss(self.layer(x), y)
            self.log("train_loss", loss, on_step=True, on_epoch=True)
            return loss

        def validation_step(self, batch, batch_idx):
            x, y = batch
            self.log("val_loss", torch.nn.functional.mse_loss(self.layer(x), y), sync_dist=True)

        def configure_optimizers(self):
            optimizer = torch.optim.Adam(self.parameters(), lr=0.01)
            return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)]

    class Data(LightningDataModule):
        def __init__(self, dataset_path, batch_size):
            super().__init__()
            print("DATA", dataset_path)
            x = torch.arange(80.0).reshape(40, 2) / 80
            self.data = TensorDataset(x, x.sum(1, keepdim=True))

        def train_dataloader(self):
            return DataLoader(self.data, 1, shuffle=True)

        def val_dataloader(self):
            return DataLoader(self.data, 1)

    class Old(Net):
        def training_epoch_end(self, outputs):
            pass

        def on_train_epoch_end(self, outputs):
            pass

    class OldData(Data):
        def on_save_checkpoint(self, checkpoint):
            pass
"""

WORDS = [
    *("--model", "mine_lean:Net", "--data", "mine_lean:Data", "--dataset-path", "data set"),
    *("--batch_size", "8", "--accelerator", "cpu"),
    *("--trainer_args", '{"enable_model_summary": false, "enable_progress_bar": false}'),
]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "mine_lean.py").write_text(textwrap.dedent(MODULE))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    sys.modules.pop("mine_lean", None)
    yield tmp_path
    sys.modules.pop("mine_lean", None)


def train(main, *arguments):
    done = CliRunner().invoke(main, [*WORDS, *arguments])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done


def weights(run):
    return torch.load(TrainingRun(run).model_path, weights_only=True)["state_dict"]


def said(run):
    """Return the journal without what depends on the clock and on the engine's file sizes."""
    events = TrainingRun(run).events()
    for event in events:
        for name in ("time", "seconds", "bytes"):
            event.pop(name, None)
    return [event for event in events if event["event"] != "engine"]


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[n], other[n]) for n in one)


@pytest.mark.filterwarnings("ignore")
def test_both_engines_leave_the_same_run(folder):
    assert train(own_main, "--epochs=3", "--run_dir=lightning").exit_code == 0
    assert train(lean_main, "--epochs=3", "--run_dir=lean").exit_code == 0
    assert train(own_main, "--epochs=3", "--run_dir=said", "--engine=lean").exit_code == 0
    assert same(weights("lightning"), weights("lean"))
    assert same(weights("lean"), weights("said"))
    assert said("lightning") == said("lean")
    lightning, lean = TrainingRun("lightning"), TrainingRun("lean")
    assert engines(lightning.events()) == ["Lightning's Trainer"]
    assert engines(lean.events()) == engines(TrainingRun("said").events()) == ["lean loop"]
    assert "<b>lean loop</b> engine" in "".join(run_report(lean, {}))
    assert lean.is_complete
    assert lean.manifest.step == 15
    assert [each.metrics for each in lean.checkpoints()] == [
        each.metrics for each in lightning.checkpoints()
    ]
    assert lean.model().hparams == {"width": 2}
    again = train(lean_main, "--epochs=3", "--run_dir=lean")
    assert "is complete: nothing to train" in again.output


@pytest.mark.filterwarnings("ignore")
def test_each_engine_goes_on_from_the_others_checkpoint_bit_for_bit(folder):
    assert train(lean_main, "--steps=12", "--run_dir=whole").exit_code == 0
    for first, second, name in ((own_main, lean_main, "a"), (lean_main, own_main, "b")):
        assert train(first, "--steps=7", f"--run_dir={name}").exit_code == 0
        (folder / name / "manifest.json").unlink()
        assert train(second, "--steps=12", f"--run_dir={name}").exit_code == 0
        assert same(weights("whole"), weights(name)), name
        steps = [e["step"] for e in TrainingRun(name).events() if e["event"] == "step"]
        assert steps == list(range(1, 13))
        assert len(engines(TrainingRun(name).events())) == 2


@pytest.mark.filterwarnings("ignore")
def test_what_is_refused_comes_before_any_data(folder):
    words = ["--run_dir=a", "--epochs=1", "--model", "mine_lean:Old", "--data", "mine_lean:OldData"]
    done = train(lean_main, *words)
    assert done.exit_code == 2
    assert "mine_lean.py:45: Old.on_train_epoch_end: outputs of an epoch are gone" in done.output
    assert "mine_lean.py:42: Old.training_epoch_end: " in done.output
    assert "mine_lean.py:49: OldData.on_save_checkpoint: " in done.output
    assert "3 things have to change" in done.output
    assert "DATA" not in done.output
    assert not (folder / "a").exists()


@pytest.mark.filterwarnings("ignore")
def test_options_of_the_loop_alone_reach_it(folder):
    options = '{"exact": "world", "grain": 2, "monitor": "val_loss", "patience": 1}'
    done = train(lean_main, "--run_dir=a", "--epochs=2", "--trainer_args", options)
    assert done.exit_code == 0, done.output
    assert TrainingRun("a").manifest.step == 10
    options = '{"exact": "word"}'
    assert train(lean_main, "--run_dir=b", "--epochs=1", "--trainer_args", options).exit_code == 2


def test_options_that_the_loop_does_not_know_are_refused(folder):
    done = train(lean_main, "--run_dir=a", "--epochs=1", "--trainer_args", '{"fast_dev_run": true}')
    assert done.exit_code == 2
    assert "'fast_dev_run', which curitorch.LeanTrainer does not know" in done.output
    assert "patience" in done.output


def test_the_help_says_which_engine_trains():
    for main, engine in ((own_main, "lightning"), (lean_main, "lean")):
        text = CliRunner().invoke(main, ["--help"], terminal_width=200).output
        assert f"[default: {engine}]" in text


@pytest.mark.slow
def test_two_processes_of_it_share_the_batch(folder):
    launch = ["torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "--"]
    words = [*launch, "curitorch.external.lean_trainer", *WORDS, "--epochs=2", "--run_dir=two"]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", *words],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    run = TrainingRun("two")
    assert run.is_complete
    assert [each.world_size for each in run.attempts()] == [2]
    assert run.manifest.step == 10
    record = json.loads((folder / "two/model_metadata.json").read_text())["extra"]
    assert (record["type"], record["step"]) == ("Net", 10)
