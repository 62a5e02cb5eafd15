"""Real curifactory managers in a temporary folder, and artifacts for them to cache."""

import sys
import textwrap
from pathlib import Path

import pytest

from curitorch.external.journal import Journal
from curitorch.external.manifest import write_manifest
from curitorch.params.curifactory_api import ArtifactManager

NETS = """
    import torch
    from lightning.pytorch import LightningModule

    class Net(LightningModule):
        def __init__(self, hidden=4):
            super().__init__()
            self.save_hyperparameters()
            self.layer = torch.nn.Linear(2, hidden)

        class Inner(LightningModule):
            pass
"""


@pytest.fixture(scope="session")
def nets(tmp_path_factory):
    """A module with LightningModules that can be imported."""
    project = tmp_path_factory.mktemp("nets")
    (project / "cached_nets.py").write_text(textwrap.dedent(NETS))
    sys.path.insert(0, str(project))
    import cached_nets

    yield cached_nets
    sys.path.remove(str(project))


@pytest.fixture
def experiment(tmp_path, monkeypatch):
    """Make managers that share one cache, as successive runs of an experiment do."""
    project = tmp_path / "a $project ü"
    project.mkdir()
    monkeypatch.chdir(project)

    def start(**options):
        return ArtifactManager("exp", disable_non_cf_loggers=False, **options)

    return start


@pytest.fixture
def make_run():
    """Write a small run directory, complete unless told."""

    def make(path: Path, *, complete: bool = True, loss: float = 0.5) -> Path:
        (path / "logs" / "attempt-0").mkdir(parents=True)
        (path / "logs" / "attempt-0" / "rank-0.log").write_text("hello\n")
        (path / "model.ckpt").write_bytes(b"weights of a model")
        (path / "lock").touch()
        with Journal(path / "journal.jsonl") as journal:
            journal.attempt(0, resume_step=0)
            for step in (1, 2):
                journal.write("metric", step=step, epoch=0, metrics={"val/loss": loss / step})
        if complete:
            write_manifest(path, [path / "model.ckpt"], step=2, epoch=1, attempts=1)
        return path

    return make
