"""A user's own trainer in ten lines, by hand and under torchrun."""

import os
import subprocess
import sys
import textwrap

import pytest

from curitorch.external.rundir import TrainingRun

OWN = """
    import click, torch
    from lightning.pytorch import LightningModule
    from torch.utils.data import DataLoader, TensorDataset
    from curitorch.external.job import TrainerJob
    from curitorch.external.options import trainer_options

    class Net(LightningModule):
        def __init__(self, width):
            super().__init__()
            self.save_hyperparameters()
            self.layer = torch.nn.Linear(width, 1)

        def training_step(self, batch, batch_idx):
            loss = self.layer(batch[0]).pow(2).mean()
            self.log("loss", loss)
            return loss

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.1)

    @click.command()
    @trainer_options
    @click.option("--width", default=3)
    def main(job: TrainerJob, width: int) -> None:
        '''Train my net.'''
        print("OWN", job.dataset_path, job.ranks.rank, job.resume)
        trainer = job.trainer(max_epochs=2, accelerator="cpu")
        job.fit(trainer, Net(width), DataLoader(TensorDataset(torch.ones(16, width)), 4))

    if __name__ == "__main__":
        main()
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "own.py").write_text(textwrap.dedent(OWN))
    return tmp_path


def call(folder, *words):
    return subprocess.run(
        [sys.executable, "-W", "ignore", *words],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
def test_it_runs_by_hand_with_the_standard_options(folder):
    result = call(folder, "own.py", "--run-dir", "a", "--dataset_path", "d", "--keep", "1")
    assert result.returncode == 0, result.stderr
    assert "OWN d 0 None" in result.stdout
    run = TrainingRun(folder / "a")
    assert run.is_complete
    assert run.manifest.step == 8
    assert [c.step for c in run.checkpoints()] == [8]
    help_text = call(folder, "own.py", "--help").stdout
    for option in ("--width", "--every_n_steps, --every-n-steps", "--resume"):
        assert option in help_text


def test_under_torchrun_the_loaders_batch_is_shared_and_one_rank_writes(folder):
    result = call(
        folder, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "--",
        "own.py", "--run_dir", "a",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    run = TrainingRun(folder / "a")
    assert run.manifest.step == 8  # 16 samples in batches of 4 over both ranks, twice
    assert run.checkpoints()[-1].samples == 32
    assert [e["step"] for e in run.events() if e["event"] == "step"] == list(range(1, 9))


def test_a_second_trainer_in_the_same_directory_is_refused(folder):
    from curitorch.external.run_lock import RunLock

    with RunLock(folder / "a"):
        result = call(folder, "own.py", "--run_dir", "a")
    assert result.returncode == 2
    assert f"is being trained by process {os.getpid()}" in result.stderr


def test_an_error_in_the_users_code_keeps_its_traceback(folder):
    text = (folder / "own.py").read_text().replace("loss = self", "loss = 1 / 0 + self")
    (folder / "own.py").write_text(text)
    result = call(folder, "own.py", "--run_dir", "a")
    assert result.returncode == 1
    assert "ZeroDivisionError" in result.stderr
    assert TrainingRun(folder / "a").attempts()[0].outcome == "failed"
