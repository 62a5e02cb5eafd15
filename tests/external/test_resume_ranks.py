"""Two real processes: stopped, resumed, and bitwise what an uninterrupted run gives."""

import os
import subprocess
import sys
import textwrap

import pytest
import torch

from curitorch.external.rundir import TrainingRun

SCRIPT = """
    import click, torch
    from lightning.pytorch import Callback, LightningModule
    from torch.utils.data import DataLoader, TensorDataset
    from curitorch.external.options import trainer_options

    class Net(LightningModule):
        def __init__(self):
            super().__init__()
            self.layers = torch.nn.Sequential(
                torch.nn.Linear(3, 16), torch.nn.Dropout(0.5), torch.nn.Linear(16, 1)
            )

        def training_step(self, batch, batch_idx):
            x, y = batch
            loss = torch.nn.functional.mse_loss(self.layers(x), y)
            self.log("train_loss", loss)
            return loss

        def configure_optimizers(self):
            optimizer = torch.optim.AdamW(self.parameters(), lr=0.05)
            scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.7)
            return {"optimizer": optimizer, "lr_scheduler": scheduler}

    class Augmented(TensorDataset):
        def __getitem__(self, index):
            x, y = super().__getitem__(index)
            return x + torch.randn(3), y

    class AskToStop(Callback):
        def __init__(self, job, rank, step):
            self.job, self.rank, self.step = job, rank, step

        def on_train_batch_end(self, trainer, *_):
            if (trainer.global_rank, trainer.global_step) == (self.rank, self.step):
                self.job.stop.reason = "SIGTERM"

    @click.command()
    @trainer_options
    @click.option("--stop_at", default=-1)
    def main(job, stop_at):
        torch.manual_seed(1)
        generator = torch.Generator().manual_seed(7)
        data = Augmented(
            torch.randn(24, 3, generator=generator), torch.randn(24, 1, generator=generator)
        )
        trainer = job.trainer(
            max_epochs=3, accelerator="cpu", log_every_n_steps=1,
            callbacks=[AskToStop(job, 1, stop_at)],
        )
        job.fit(trainer, Net(), DataLoader(data, 4, shuffle=True, num_workers=1), seed=3)

    main()
"""


def train(folder, run, *words):
    return subprocess.run(
        [
            *(sys.executable, "-W", "ignore", "-m", "torch.distributed.run", "--standalone"),
            *("--nproc-per-node=2", "--", "script.py", f"--run_dir={run}", "--keep=0", *words),
        ],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )


def outcome(run):
    """Return the weights, and what the journal says without times."""
    run = TrainingRun(run)
    kept = [e for e in run.events() if e["event"] in ("step", "metric")]
    history = [{k: v for k, v in event.items() if k != "time"} for event in kept]
    return torch.load(run.model_path, weights_only=True)["state_dict"], history


@pytest.mark.slow
@pytest.mark.parametrize("asynchronous", ["false", "true"])
def test_two_ranks_stopped_by_one_of_them_end_bitwise_as_if_they_were_not(tmp_path, asynchronous):
    (tmp_path / "script.py").write_text(textwrap.dedent(SCRIPT))
    policy = f"--asynchronous={asynchronous}"
    assert train(tmp_path, "whole", policy).returncode == 0
    weights, history = outcome(tmp_path / "whole")
    for stop_at in (4, 6, 13):  # within an epoch, at the end of one, in the last one
        run = f"stopped-{stop_at}"
        assert train(tmp_path, run, policy, f"--stop_at={stop_at}").returncode != 0
        assert TrainingRun(tmp_path / run).newest_checkpoint().step == stop_at
        resumed = train(tmp_path, run, policy)
        assert resumed.returncode == 0, resumed.stderr
        again, events = outcome(tmp_path / run)
        assert events == history
        assert all(torch.equal(again[name], weights[name]) for name in weights)
