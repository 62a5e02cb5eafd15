"""A run whose checkpoints go to a store elsewhere: the trainer program and a real service."""

import os
import signal
import subprocess
import sys
import textwrap

import pytest
import torch

from curitorch.external.rundir import TrainingRun
from curitorch.external.stores import LocalStore
from curitorch.external.stores.testing.running_service import RunningService

MODULE = """
    import sys, torch
    from curitorch.external.stores import LocalStore
    from curitorch.external.stores.store import StoreError
    from lightning.pytorch import LightningModule
    from torch.utils.data import DataLoader, TensorDataset

    class Net(LightningModule):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(2, 1)

        def training_step(self, batch, batch_idx):
            print("step", self.global_step, flush=True)
            sys.stdin.readline()
            return torch.nn.functional.mse_loss(self.layer(batch[0]), batch[1])

        def train_dataloader(self):
            x = torch.arange(80.0).reshape(40, 2) / 80
            return DataLoader(TensorDataset(x, x.sum(1, keepdim=True)), 8, shuffle=True)

        def configure_optimizers(self):
            return torch.optim.Adam(self.parameters(), lr=0.1)

    class Full(LocalStore):
        def __init__(self, root: str):
            super().__init__(root)

        def put(self, step, files, **options):
            if step >= 4:
                raise StoreError("The quota is used up.")
            return super().put(step, files, **options)

        def __reduce__(self):
            return Full, (str(self.root),)
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "mine.py").write_text(textwrap.dedent(MODULE))
    (tmp_path / "service").mkdir()
    return tmp_path


@pytest.fixture
def service(folder):
    with RunningService(folder / "service", "--lease-seconds", "2") as service:
        yield service


def words(service, run, *more):
    kind, settings = service.recipe("{run}")
    return [
        *(sys.executable, "-W", "ignore", "-m", "curitorch.external.trainer"),
        *("--model", "mine:Net", "--epochs=2", "--batch_size=8", f"--run_dir={run}"),
        "--accelerator=cpu",
        *("--trainer_args", '{"enable_model_summary": false, "enable_progress_bar": false}'),
        *("--store", kind, "--store_settings", f"{settings},tries=2", "--every_n_steps=3", *more),
    ]


def train(folder, command):
    return subprocess.run(
        command, cwd=folder, input="\n" * 100, capture_output=True, text=True, check=False
    )


def weights(folder, run):
    return torch.load(folder / run / "model.ckpt", weights_only=True)["state_dict"]


@pytest.mark.parametrize(
    "asynchronous",
    ["--asynchronous=true", pytest.param("--asynchronous=false", marks=pytest.mark.slow)],
)
def test_a_run_saves_into_a_service_is_killed_goes_on_there_and_equals_an_uninterrupted_one(
    folder, service, asynchronous
):
    result = train(folder, words(service, "whole", asynchronous))
    assert result.returncode == 0, result.stderr
    assert [c.step for c in service.store("whole").list()] == [6, 9, 10]
    assert not (folder / "whole/checkpoints").exists()

    command = words(service, "killed", asynchronous)
    victim = subprocess.Popen(
        command,
        cwd=folder,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    victim.stdin.write("\n" * 7)
    victim.stdin.flush()
    assert "step 7\n" in iter(victim.stdout.readline, "")
    os.kill(victim.pid, signal.SIGKILL)
    victim.communicate()
    result = train(folder, command)
    assert result.returncode == 0, result.stderr
    attempt = [e for e in TrainingRun(folder / "killed").events() if e["event"] == "attempt"][-1]
    assert attempt["resume_step"] in (5, 6)
    assert TrainingRun(folder / "killed").is_complete
    expected, found = weights(folder, "whole"), weights(folder, "killed")
    assert all(torch.equal(expected[name], found[name]) for name in expected)


@pytest.mark.slow
def test_what_cannot_be_meant_is_one_sentence_and_status_2(folder, service):
    refused = {
        "has no setting 'roots'": ["--store=local", "--store_settings=roots=/tmp"],
        "There is no 'ftp' store": ["--store=ftp"],
        "say both where": ["--checkpoint_dir=here"],
        "keep_best needs a metric": ["--keep_best=2"],
    }
    for sentence, more in refused.items():
        result = train(folder, words(service, "refused", *more))
        assert result.returncode == 2, result.stderr
        assert sentence in " ".join(result.stderr.split())
        assert "Traceback" not in result.stderr


def test_a_service_that_is_not_there_stops_the_run_before_it_begins(folder, service):
    service.kill()
    result = train(folder, words(service, "unreached"))
    assert result.returncode == 2
    assert "127.0.0.1" in result.stderr
    assert "Traceback" not in result.stderr
    assert not (folder / "unreached/model.ckpt").exists()


@pytest.mark.slow
@pytest.mark.parametrize("asynchronous", ["--asynchronous=true", "--asynchronous=false"])
def test_a_store_that_fails_ends_every_rank_with_an_error_at_one_step(folder, asynchronous):
    result = train(
        folder,
        [
            *(sys.executable, "-W", "ignore", "-m", "torch.distributed.run", "--nproc-per-node=2"),
            *("--log-dir", str(folder / "logs"), "--redirects=3", "-m"),
            *("--", "curitorch.external.trainer", "--model", "mine:Net", "--steps=40"),
            *("--batch_size=8", "--run_dir=run", "--accelerator=cpu", "--every_n_steps=2"),
            *("--trainer_args", '{"enable_model_summary": false}', asynchronous),
            *("--store=mine:Full", "--store_settings=root=kept"),
        ],
    )
    assert result.returncode == 1
    logs = {path.parent.name: path.read_text() for path in folder.glob("logs/*/*/*/stderr.log")}
    assert set(logs) == {"0", "1"}
    assert "StoreError: " in logs["0"]
    assert "The quota is used up." in logs["0"]
    assert "Rank 0 could not write a checkpoint" in logs["1"]
    assert [c.step for c in LocalStore(folder / "kept").list()] == [2]
