"""A project of a user with a real trained model, its run and its dataset, in three small files."""

import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from curitorch.external.attempt import end_attempt, start_attempt
from curitorch.external.journal import Journal
from curitorch.external.manifest import write_manifest
from curitorch.external.model import save_model

CODE = {
    "shapes_model.py": """
        import torch
        from lightning.pytorch import LightningModule

        class Shapes(LightningModule):
            def __init__(self, classes=3):
                super().__init__()
                self.save_hyperparameters()
                self.layer = torch.nn.Linear(64, classes)

            def forward(self, images):
                return self.layer(images.flatten(1))

        class Sum(LightningModule):
            def predict_step(self, batch, batch_idx):
                return batch[0].flatten(1).sum(1)
    """,
    "shapes_data.py": """
        import numpy as np
        import torch
        from torch.utils.data import DataLoader, TensorDataset

        def loaders(dataset_path, batch_size, flat=False):
            with np.load(dataset_path) as arrays:
                images, labels = (torch.from_numpy(arrays[n]) for n in ("images", "labels"))
            data = TensorDataset(images.flatten(1) if flat else images, labels)
            return {
                "train": DataLoader(data, batch_size, shuffle=True),
                "val": DataLoader(data, batch_size),
            }

        def broken(dataset_path):
            raise RuntimeError("the disk of <shapes> is on fire")

        def unlabelled(dataset_path, batch_size):
            with np.load(dataset_path) as arrays:
                return DataLoader(torch.from_numpy(arrays["images"]), batch_size)
    """,
}


def write_run(path: Path, model=None, *, loss: float = 1.0, complete: bool = True) -> Path:
    """Write a run directory as our trainer does, with `model` as its final one."""
    attempt = start_attempt(path, ["train"], world_size=1, nodes=1)
    with Journal(path / "journal.jsonl") as journal:
        journal.attempt(0, resume_step=0)
        for step in (1, 2, 4):
            metrics = {"train_loss": loss / step, "val/loss": 2 * loss / step, "note": "ü"}
            journal.write("metric", step=step, epoch=step // 2, metrics=metrics)
    end_attempt(path, attempt, exit_code=0, outcome="complete" if complete else "stopped")
    if complete:
        save_model(model, path / "model.ckpt")
        write_manifest(path, [path / "model.ckpt"], step=4, epoch=2, attempts=1)
    return path


@pytest.fixture(scope="session")
def code(tmp_path_factory):
    """The user's modules, importable."""
    folder = tmp_path_factory.mktemp("shapes code")
    for name, text in CODE.items():
        (folder / name).write_text(textwrap.dedent(text))
    sys.path.insert(0, str(folder))
    yield folder
    sys.path.remove(str(folder))


@pytest.fixture
def project(tmp_path, monkeypatch, code):
    """A folder with two complete runs and a dataset; it is the working directory."""
    from shapes_model import Shapes

    folder = tmp_path / "a user's project"
    write_run(folder / "cache/one_run", Shapes(), loss=1.0)
    write_run(folder / "cache/two_run", Shapes(), loss=0.5)
    images = np.random.default_rng(0).random((40, 8, 8), dtype="float32")
    np.savez(folder / "cache/shapes.npz", images=images, labels=np.arange(40) % 3)
    monkeypatch.chdir(folder)
    return folder
