"""A user's project in a temporary folder, and running its experiment in a real process."""

import json
import os
import subprocess
import sys
import textwrap
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from curitorch.external.journal import read_journal
from curitorch.external.rundir import TrainingRun
from curitorch.stages.processes import survivors

SLOW_STEPS = 200

TOY = {
    "toy/__init__.py": "",
    "toy/model.py": """
        import os, signal, time
        import torch
        from lightning.pytorch import LightningModule

        class Net(LightningModule):
            '''Learns a line; `trouble` happens on one rank at one step of the first attempt.

            With a `sleep` the first attempt becomes slower after 20 steps: whoever is to stop it
            does not come too late.
            '''

            def __init__(self, sleep=0.0, trouble="", rank=0, step=5):
                super().__init__()
                self.layer = torch.nn.Linear(2, 1)
                self.sleep, self.trouble, self.at = sleep, trouble, (rank, step)

            def training_step(self, batch, batch_idx):
                time.sleep(self.slowness() * (os.environ.get("CURITORCH_ATTEMPT") == "0"))
                x, y = batch
                loss = torch.nn.functional.mse_loss(self.layer(x), y)
                self.log("train_loss", loss)
                if self.trouble and (self.global_rank, self.global_step) == self.at:
                    self.make_trouble()
                return loss

            def slowness(self):
                late = self.global_step >= 20 and os.environ.get("CURITORCH_ATTEMPT") == "0"
                return max(self.sleep, 1.0) if self.sleep and late else self.sleep

            def make_trouble(self):
                first = os.environ["CURITORCH_ATTEMPT"] == "0"
                if self.trouble == "raise":
                    raise ValueError("bad batch: 'x' is $HOME")
                if self.trouble == "raise once" and first:
                    raise ValueError("bad batch")
                if self.trouble == "die once" and first:
                    os.kill(os.getpid(), signal.SIGKILL)
                if self.trouble == "full disk":
                    raise OSError(28, "No space left on device")

            def validation_step(self, batch, batch_idx):
                x, y = batch
                self.log("val/loss", torch.nn.functional.mse_loss(self.layer(x), y), sync_dist=True)

            def configure_optimizers(self):
                return torch.optim.SGD(self.parameters(), lr=0.1)
    """,
    "toy/data.py": """
        import torch
        from torch.utils.data import DataLoader, TensorDataset

        def loaders(dataset_path, batch_size):
            x = torch.arange(80.0).reshape(40, 2) / 80
            data = TensorDataset(x, x.sum(1, keepdim=True))
            return DataLoader(data, batch_size, shuffle=True), DataLoader(data, batch_size)
    """,
    "experiments/toy.py": """
        import curifactory as cf
        from curitorch.cachers import DatasetCacher
        from curitorch.stages import external_training

        @cf.stage([], ["dataset"], [DatasetCacher])
        def make(record):
            path = record.get_dir("raw")
            with open(path + "/data.txt", "w") as file:
                file.write("data")
            return path

        train = external_training(inputs={"dataset": "dataset_path"})

        def run(param_sets, manager):
            for params in param_sets:
                record = cf.Record(manager, params)
                train(make(record))
    """,
    "params/one.py": """
        from curitorch.params import CheckpointParams, LaunchParams, TrainerParams, TrainingParams

        def get_params():
            return [TrainingParams(
                name="one",
                trainer=TrainerParams(
                    model="toy.model:Net", data="toy.data:loaders", epochs=3, batch_size=8,
                    trainer_args={"enable_model_summary": False, "log_every_n_steps": 1},
                ),
                launch=LaunchParams(accelerator="cpu"),
            )]
    """,
}

CONFIG = {
    "experiments_module_name": "experiments",
    "params_module_name": "params",
    "manager_cache_path": "data",
    "cache_path": "data/cache",
    "runs_path": "data/runs",
    "logs_path": "logs",
    "notebooks_path": "notebooks",
    "reports_path": "reports",
    "report_css_path": "reports/style.css",
}


@dataclass(frozen=True)
class Project:
    """A curifactory project; `run` is its `experiment` with a true exit status."""

    path: Path

    def write(self, files: dict[str, str]) -> None:
        for name, text in files.items():
            path = self.path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(textwrap.dedent(text).lstrip("\n"))

    def change(self, name: str, old: str, new: str) -> None:
        text = (self.path / name).read_text()
        assert old in text
        (self.path / name).write_text(text.replace(old, new))

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "curitorch.stages.run", "toy", "-p", "one", *arguments]

    def environment(self) -> dict[str, str]:
        return {**os.environ, "PYTHONWARNINGS": "ignore", "OMP_NUM_THREADS": "1", "COLUMNS": "200"}

    def run(self, *arguments: str, timeout: float = 600) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command("--plain", *arguments),
            cwd=self.path,
            env=self.environment(),
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    def start(self, *arguments: str, **options) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self.command("--plain", *arguments),
            cwd=self.path,
            env=self.environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            **options,
        )

    def runs(self) -> list[Path]:
        return sorted(p for p in (self.path / "data/cache").glob("*_run") if p.is_dir())

    def attempts(self, run: Path) -> list[dict]:
        found = sorted((run / "attempts").glob("*.json"), key=lambda path: int(path.stem))
        return [json.loads(path.read_text()) for path in found]

    def wait_for_step(self, step: int, timeout: float = 200) -> Path:
        """Wait until a journal has `step`; returns its run directory."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            for path in self.runs():
                events = read_journal(path / "journal.jsonl")
                if any(e["event"] == "step" and e["step"] >= step for e in events):
                    return path
            time.sleep(0.05)
        raise AssertionError(f"step {step} was not reached")

    def wait_until_gone(self, path: Path, seconds: float = 90) -> None:
        """Wait until no process of a run is left."""
        deadline = time.monotonic() + seconds
        while survivors(path):
            assert time.monotonic() < deadline, [p.cmdline() for p in survivors(path)]
            time.sleep(0.1)

    def finish(self, path: Path, steps: int = SLOW_STEPS) -> TrainingRun:
        """Run the same command again: complete, nothing missing, nothing there twice."""
        result = self.run()
        assert result.returncode == 0, result.stdout + result.stderr
        run = TrainingRun(path)
        assert run.is_complete
        assert [e["step"] for e in run.events() if e["event"] == "step"] == [*range(1, steps + 1)]
        assert run.metrics()["train_loss"].notna().sum() == steps
        return run


@pytest.fixture
def project(tmp_path) -> Project:
    project = Project(tmp_path / "a user's project")
    project.write(TOY)
    project.write({"curifactory_config.json": json.dumps(CONFIG)})
    return project


@pytest.fixture
def slow_project(project) -> Project:
    """Two processes, slow steps in the first attempt, no waiting in later ones."""
    project.change("params/one.py", 'accelerator="cpu"', 'accelerator="cpu", processes_per_node=2')
    project.change("params/one.py", "epochs=3,", 'epochs=40, model_args={"sleep": 0.1},')
    return project
