"""Several real processes: stopped, resumed, and bitwise what an uninterrupted run gives."""

import json
import os
import subprocess
import sys
import textwrap
from itertools import chain
from pathlib import Path

import pytest
import torch
from matrix_cases import RANKS_CASES

from curitorch.external.rundir import TrainingRun

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]  # many launches each

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
    words = (f"--run_dir={run}", "--keep=0", *words)
    return launch("script.py", folder, *words, processes=2, seconds=300)


def outcome(run):
    """Return the weights, and what the journal says without times."""
    run = TrainingRun(run)
    kept = [e for e in run.events() if e["event"] in ("step", "metric")]
    times = ("time", "seconds")
    history = [{k: v for k, v in event.items() if k not in times} for event in kept]
    return torch.load(run.model_path, weights_only=True)["state_dict"], history


def test_two_ranks_stopped_by_one_of_them_end_bitwise_as_if_they_were_not(tmp_path):
    (tmp_path / "script.py").write_text(textwrap.dedent(SCRIPT))
    assert train(tmp_path, "whole").returncode == 0
    weights, history = outcome(tmp_path / "whole")
    for policy in ("--asynchronous=false", "--asynchronous=true"):
        run = policy.removeprefix("--")
        for stop_at in (4, 6, 13):  # within an epoch, at the end of one, in the last one
            assert train(tmp_path, run, policy, f"--stop_at={stop_at}").returncode != 0
            assert TrainingRun(tmp_path / run).newest_checkpoint().step == stop_at
        resumed = train(tmp_path, run, policy)
        assert resumed.returncode == 0, resumed.stderr
        again, events = outcome(tmp_path / run)
        assert events == history
        assert all(torch.equal(again[name], weights[name]) for name in weights)


MATRIX = Path(__file__).with_name("matrix") / "resume_matrix.py"


def launch(program, folder, *words, processes, seconds=800):
    return subprocess.run(
        [
            *(sys.executable, "-W", "ignore", "-m", "torch.distributed.run", "--standalone"),
            *(f"--nproc-per-node={processes}", "--", str(program), *words),
        ],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )


@pytest.mark.parametrize("part", [0, 1])
def test_each_of_two_ranks_resumes_with_what_it_knew_itself(part, tmp_path):
    done = launch(MATRIX, tmp_path, "checkpoints", *[*RANKS_CASES][part::2], processes=2)
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]


def test_three_ranks_add_their_gradients_in_the_same_order_after_a_resume(tmp_path):
    names = ["dropout", "means", "accumulation", "optimization by hand"]
    done = launch(MATRIX, tmp_path, "checkpoints", *names, processes=3)
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]


OTHER_WORLD = """
    import json, os, sys, torch
    from lightning.pytorch import LightningModule, Trainer
    from torch.utils.data import DataLoader, TensorDataset
    from curitorch.external.exact.exact_data import exact_data
    from curitorch.external.groups import groups_left
    from curitorch.external.stores import LocalStore, PeriodicCheckpoint
    from curitorch.params import CheckpointParams

    class Net(LightningModule):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(1))
            self.seen = []

        def training_step(self, batch, batch_idx):
            self.seen.append((self.current_epoch, batch_idx, batch[0].int().tolist()))
            self.log("mean", batch[0].float().mean(), on_epoch=True, sync_dist=True)
            return (self.weight * batch[0]).sum()

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), 0.1)

    seen, steps, checkpoint = sys.argv[1:]
    net, data = Net(), TensorDataset(torch.arange(22.0))
    trainer = Trainer(
        max_epochs=2, max_steps=int(steps), devices=int(os.environ.get("WORLD_SIZE", 1)),
        accelerator="cpu", logger=False, enable_progress_bar=False, enable_checkpointing=False,
        callbacks=[PeriodicCheckpoint(LocalStore("store-" + seen), CheckpointParams())],
    )
    with groups_left():
        trainer.fit(
            net, exact_data(DataLoader(data, 6, shuffle=True), seed=5),
            ckpt_path=None if checkpoint == "-" else checkpoint,
        )
    with open(f"{seen}-{trainer.global_rank}.json", "w") as file:
        json.dump(net.seen, file)
"""


def seen(folder, name):
    """Return which samples met in each global batch."""
    batches = {}
    for path in folder.glob(f"{name}-*.json"):
        for epoch, number, samples in json.loads(path.read_text()):
            batches.setdefault((epoch, number), []).extend(samples)
    return {place: sorted(samples) for place, samples in batches.items()}


@pytest.mark.parametrize(("before", "after", "stop"), [(2, 1, 2), (1, 2, 6)])
def test_on_another_number_of_processes_each_sample_comes_once_in_the_same_batch(
    before, after, stop, tmp_path
):
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(OTHER_WORLD))
    assert launch(script, tmp_path, "whole", "-1", "-", processes=after).returncode == 0
    whole = seen(tmp_path, "whole")
    for epoch in (0, 1):
        batches = [samples for (of, _), samples in whole.items() if of == epoch]
        assert sorted(chain(*batches)) == [*range(22)]
    assert launch(script, tmp_path, "begun", str(stop), "-", processes=before).returncode == 0
    file = tmp_path / f"store-begun/step-{stop:08}/model.ckpt"
    done = launch(script, tmp_path, "rest", "-1", str(file), processes=after)
    assert done.returncode == 0, done.stderr
    assert "means that are logged at the end of this epoch are of its remaining" in done.stderr
    begun, rest = seen(tmp_path, "begun"), seen(tmp_path, "rest")
    assert not begun.keys() & rest.keys()
    assert begun | rest == whole
