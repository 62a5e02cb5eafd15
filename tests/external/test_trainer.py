"""The trainer program by hand: no curifactory, no stage."""

import json
import os
import subprocess
import sys
import textwrap

import pytest
import torch

from curitorch.external.open_job import open_job
from curitorch.external.refused import Refused
from curitorch.external.rundir import TrainingRun
from curitorch.external.stop import StopRequest

MODULE = """
    import pathlib
    import torch, pytorch_lightning
    from lightning.pytorch import LightningModule, LightningDataModule
    from torch.utils.data import DataLoader, TensorDataset

    class Net(LightningModule):
        def __init__(self, width: int = 2):
            super().__init__()
            self.layer = torch.nn.Linear(width, 1)

        def training_step(self, batch, batch_idx):
            x, y = batch
            loss = torch.nn.functional.mse_loss(self.layer(x), y)
            self.log("train_loss", loss)
            return loss

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.1)

    class Holder:
        class Inner(Net):
            def __init__(self, where=pathlib.Path("x")):
                super().__init__()
                self.save_hyperparameters()

    class Data(LightningDataModule):
        def __init__(self, dataset_path, batch_size, note=""):
            super().__init__()
            print("DATA", dataset_path, batch_size, note)

        def train_dataloader(self):
            x = torch.arange(80.0).reshape(40, 2) / 80
            return DataLoader(TensorDataset(x, x.sum(1, keepdim=True)), 1, shuffle=True)

    def nothing(path):
        return None

    class Old(pytorch_lightning.LightningModule):
        pass

    class Plain:
        pass
"""

FAST = ["--accelerator", "cpu", "--trainer_args", '{"enable_model_summary": false}']


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "mine.py").write_text(textwrap.dedent(MODULE))
    return tmp_path


def call(folder, *arguments, module="curitorch.external.trainer", **environment):
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-m", module, *arguments],
        cwd=folder,
        env={**os.environ, "COLUMNS": "100", **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def train(folder, *arguments, **environment):
    words = ["--model", "mine:Net", "--data", "mine:Data", "--dataset-path", "data set"]
    return call(folder, *words, "--batch_size", "8", *FAST, *arguments, **environment)


def test_by_hand_it_trains_shows_a_bar_and_goes_on_and_knows_when_it_is_complete(folder):
    result = train(folder, "--epochs=2", "--run_dir=runs/a", "--data_args", '{"note": "$ä \\" "}')
    assert result.returncode == 0, result.stderr
    assert 'DATA data set 8 $ä " ' in result.stdout
    assert "Epoch 1" in result.stdout  # the progress bar
    run = TrainingRun(folder / "runs/a")
    assert run.is_complete
    assert run.manifest.step == 10
    assert run.attempts()[0].outcome == "complete"
    content = torch.load(run.model_path, weights_only=True)
    assert content["curitorch_model"]["qualname"] == "Net"

    again = train(folder, "--epochs=3", "--run_dir=runs/a")
    assert again.returncode == 0
    assert "is complete: nothing to train. It was trained without --epochs=3:" in again.stderr


def test_the_cookbooks_options_alone_say_where_everything_goes(folder):
    result = train(
        folder, "--steps=7", "--model_path", "out/net.ckpt", "--checkpoint_dir", "out/states"
    )
    assert result.returncode == 0, result.stderr
    assert (folder / "out/net.ckpt").is_file()
    record = json.loads((folder / "out/net_metadata.json").read_text())["extra"]
    assert (record["type"], record["step"]) == ("Net", 7)
    assert TrainingRun(folder / "out/net.run").manifest.step == 7
    assert TrainingRun(folder / "out/net.run").is_complete
    assert (folder / "out/states/step-00000007/model.ckpt").is_file()


@pytest.mark.slow
def test_a_run_can_begin_at_a_checkpoint_of_another_and_never_loses_its_own(folder):
    assert train(folder, "--steps=6", "--run_dir=a").returncode == 0
    start = "a/checkpoints/step-00000006/model.ckpt"
    result = train(folder, "--steps=8", "--run_dir=b", "--resume", start)
    assert result.returncode == 0, result.stderr
    events = TrainingRun(folder / "b").events()
    assert [e["step"] for e in events if e["event"] == "step"] == [7, 8]

    (folder / "b/manifest.json").unlink()
    refused = train(folder, "--steps=9", "--run_dir=b", "--resume", "none")
    assert refused.returncode == 2
    assert "the run has checkpoints up to step 8" in refused.stderr
    refused = train(folder, "--steps=9", "--run_dir=b", "--resume", "nowhere.ckpt")
    assert "'nowhere.ckpt' is no file" in refused.stderr
    (folder / "torn.ckpt").write_bytes(b"PK\x03\x04")
    refused = train(folder, "--steps=9", "--run_dir=c", "--resume", "torn.ckpt")
    assert refused.returncode == 2
    assert "is not a Lightning checkpoint" in refused.stderr


@pytest.mark.slow
def test_a_run_that_a_newer_curitorch_saved_in_is_refused_before_a_step_is_trained(folder):
    words = ["--run_dir=a", "--every-n-steps=2", "--keep=0"]
    assert train(folder, "--steps=4", *words).returncode == 0
    (folder / "a/manifest.json").unlink()
    before = sorted((folder / "a/checkpoints").rglob("*.*"))
    for step in (4, 2):  # the newest first, then all of them
        path = folder / f"a/checkpoints/step-0000000{step}.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "schema": 3}))
        for engine in ("trainer", "lean_trainer"):
            arguments = ["--model", "mine:Net", "--data", "mine:Data", "--batch_size=8", *words]
            refused = call(
                *(folder, *arguments, "--steps=6", "--accelerator=cpu", "--dataset_path=data"),
                module=f"curitorch.external.{engine}",
            )
            assert refused.returncode == 2, refused.stderr
            said = " ".join(refused.stderr.replace("│", " ").split())
            assert "The newest checkpoint, of step 4, is for another curitorch" in said
            assert "has schema 3" in said
            assert "Traceback" not in said
    assert sorted((folder / "a/checkpoints").rglob("*.*")) == before
    steps = [e["step"] for e in TrainingRun(folder / "a").events() if e["event"] == "step"]
    assert steps == [1, 2, 3, 4]


@pytest.mark.slow
def test_a_checkpoint_that_needs_more_trust_says_so_when_it_is_resumed(folder):
    words = ["--model", "mine:Holder.Inner", "--run_dir=a"]
    assert train(folder, *words, "--steps=3").returncode == 0
    (folder / "a/manifest.json").unlink()
    refused = train(folder, *words, "--steps=5")
    assert refused.returncode == 2, refused.stderr
    assert "Pass --trusted" in refused.stderr
    assert train(folder, *words, "--steps=5", "--trusted").returncode == 0


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--model", "mine"], "expected package.module:Name"),
        (["--model", "nowhere:Net"], "there is no module 'nowhere'"),
        pytest.param(["--model", "mine:Nat"], "module 'mine' has no 'Nat'", marks=pytest.mark.slow),
        (["--model", "mine:Plain"], "a class, but no LightningModule"),
        pytest.param(
            ["--model", "mine:nothing"], "a function, not a class", marks=pytest.mark.slow
        ),
        pytest.param(
            ["--model", "mine:Old"], "does not mix with 'lightning.pytorch'", marks=pytest.mark.slow
        ),
        (["--model_args", '{"height": 2}'], "does not fit Net(width: int = 2)"),
        pytest.param(
            ["--data_args", '{"colour": 1}'],
            "does not fit Data(dataset_path, batch_size",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            ["--data", "mine:nothing"],
            "The data function returned a NoneType",
            marks=pytest.mark.slow,
        ),
        pytest.param(["--accelerator", "gpu"], "torch finds no GPU", marks=pytest.mark.slow),
        (["--trainer_args", '{"max_epoch": 3}'], "'max_epoch', which lightning.Trainer"),
        (["--batch_size", "9", "--accumulate", "2"], "not divisible by accumulate"),
    ],
)
def test_what_cannot_be_is_one_sentence_and_status_2(folder, arguments, sentence):
    if "gpu" in arguments and torch.cuda.is_available():
        pytest.skip("needs a machine without a GPU")
    result = train(folder, "--steps=1", "--run_dir=a", *arguments)
    assert result.returncode == 2, result.stderr
    said = " ".join(result.stderr.replace("│", " ").split())
    assert sentence in said
    assert "Traceback" not in result.stderr
    assert not (folder / "a/manifest.json").exists()


def test_without_a_directory_or_a_length_nothing_is_begun(folder):
    assert "Give --run_dir" in train(folder, "--steps=1").stderr
    assert "the training has no end" in train(folder, "--run_dir=a").stderr
    assert not (folder / "a").exists()


def test_what_is_no_directory_to_train_in_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(StopRequest, "listen", lambda request: None)
    (tmp_path / "file").write_text("mine")
    with (
        pytest.raises(Refused, match=r"file' is no directory that .* Give another --run_dir\."),
        open_job(run_dir=tmp_path / "file"),
    ):
        pass
    assert (tmp_path / "file").read_text() == "mine"


def test_help_needs_no_torch_and_tells_how_to_use_it_by_hand(folder):
    (folder / "torch.py").write_text("raise ImportError('torch was imported')")
    result = call(folder, "--help", PYTHONPATH=str(folder))
    assert result.returncode == 0, result.stderr
    for words in ("--batch_size, --batch-size", "over all processes", "newest whole checkpoint"):
        assert words in " ".join(result.stdout.split())
