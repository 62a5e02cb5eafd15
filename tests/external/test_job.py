"""A trainer's job, where it needs no process of its own."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch import LightningDataModule

from curitorch.external.checkpoint import Checkpoint
from curitorch.external.open_job import open_job
from curitorch.external.refused import Refused
from curitorch.external.stop import StopRequest

DATA = LightningDataModule()


class Net(torch.nn.Linear):
    pass


def loaded_into(model):
    """Return what stands for a trainer: it loads the state of a wider model, and fails."""

    def fit(module, datamodule, ckpt_path):
        model.load_state_dict(Net(3, 1).state_dict())

    return SimpleNamespace(fit=fit)


def test_a_checkpoint_of_other_code_is_refused_by_its_name(tmp_path, monkeypatch):
    monkeypatch.setattr(StopRequest, "listen", lambda request: None)
    model = Net(2, 1)
    with pytest.raises(RuntimeError, match="for Linear"), open_job(run_dir=tmp_path / "a") as job:
        job = replace(job, resume=Checkpoint(Path("a/model.ckpt"), step=32))
        job.fit(loaded_into(torch.nn.Linear(2, 1)), model, DATA)  # not the resume's trouble
    with (
        pytest.raises(Refused, match=r"'a/model.ckpt' \(step 32\) does not fit.*size mismatch"),
        open_job(run_dir=tmp_path / "b") as job,
    ):
        job = replace(job, resume=Checkpoint(Path("a/model.ckpt"), step=32))
        job.fit(loaded_into(model), model, DATA)
    with pytest.raises(RuntimeError, match="for Net"), open_job(run_dir=tmp_path / "c") as job:
        job.fit(loaded_into(model), model, DATA)
