"""The plugins in Lightning's Trainer, with its own ModelCheckpoint and without the rest of ours."""

import json
import os

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins import CheckpointIO
from torch.utils.data import DataLoader

from curitorch.external.checkpoint import list_checkpoints, read_checkpoint
from curitorch.external.schema import UnreadableFile
from curitorch.external.stores import AsyncCheckpointIO, VerifiedCheckpointIO


class Net(LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(4, 1)

    def training_step(self, batch, batch_idx):
        loss = self.layer(batch).pow(2).mean()
        self.log("loss", loss)
        return loss

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=0.1)


def loader():
    return DataLoader(torch.ones(12, 4), 2)


def trainer(folder, plugin, *callbacks, **options):
    return Trainer(
        **{"max_epochs": 2, **options},
        accelerator="cpu",
        default_root_dir=folder,
        plugins=[plugin],
        callbacks=list(callbacks),
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


@pytest.mark.parametrize("plugin", [VerifiedCheckpointIO, AsyncCheckpointIO])
def test_model_checkpoint_keeps_working_and_every_file_has_a_sidecar_that_holds(tmp_path, plugin):
    saver = ModelCheckpoint(tmp_path / "c", monitor="loss", save_top_k=2, every_n_train_steps=2)
    model = Net()
    trainer(tmp_path, plugin(), saver).fit(model, loader())
    checkpoints = list_checkpoints(tmp_path / "c")
    assert len(checkpoints) == 2
    assert {str(c.path) for c in checkpoints} == set(saver.best_k_models)
    for checkpoint in checkpoints:
        checkpoint.verify()
        Net.load_from_checkpoint(checkpoint.path)
    assert len(os.listdir(tmp_path / "c")) == 4  # nothing else is left
    again = Net()
    resumed = trainer(tmp_path, plugin(), max_epochs=3)
    resumed.fit(again, loader(), ckpt_path=saver.best_model_path)
    assert resumed.global_step > checkpoints[-1].step


def test_an_old_checkpoint_goes_only_when_the_newer_one_is_durable(tmp_path, monkeypatch):
    plugin = AsyncCheckpointIO()
    plugin.save_checkpoint({"global_step": 1}, tmp_path / "1.ckpt")
    plugin.save_checkpoint({"global_step": 2}, tmp_path / "2.ckpt")
    plugin.remove_checkpoint(tmp_path / "1.ckpt")
    assert (tmp_path / "1.ckpt").exists()
    plugin.wait()
    assert [c.step for c in list_checkpoints(tmp_path)] == [2]
    (tmp_path / "3.ckpt").mkdir()  # saving there must fail
    plugin.save_checkpoint({"global_step": 3}, tmp_path / "3.ckpt")
    plugin.remove_checkpoint(tmp_path / "2.ckpt")
    with pytest.warns(UserWarning, match=r"Not removed.*2\.ckpt"), pytest.raises(OSError):
        plugin.wait()
    assert [c.step for c in list_checkpoints(tmp_path)] == [2]
    plugin.teardown()


def test_a_failed_save_ends_the_training_at_the_next_save_and_not_silently(tmp_path):
    class Saver(ModelCheckpoint):
        def _save_checkpoint(self, trainer, filepath):
            if trainer.global_step == 4:
                os.mkdir(filepath)  # noqa: PTH102
            super()._save_checkpoint(trainer, filepath)

    saver = Saver(tmp_path / "c", every_n_train_steps=2, save_top_k=-1)
    with pytest.raises(OSError, match=r"Saving .* failed"):
        trainer(tmp_path, AsyncCheckpointIO(), saver).fit(Net(), loader())
    assert [c.step for c in list_checkpoints(tmp_path / "c")] == [2]


@pytest.mark.parametrize("plugin", [VerifiedCheckpointIO, AsyncCheckpointIO])
def test_a_torn_or_altered_file_is_refused_when_it_is_read(tmp_path, plugin):
    io = plugin()
    path = tmp_path / "x.ckpt"
    for damage in (lambda b: b[:-7], lambda b: b[:-3] + b"xyz"):
        io.save_checkpoint({"global_step": 1, "x": torch.ones(100)}, path)
        io.load_checkpoint(path)
        path.write_bytes(damage(path.read_bytes()))
        with pytest.raises(UnreadableFile, match="altered"):
            io.load_checkpoint(path)
    io.teardown()


@pytest.mark.parametrize("plugin", [VerifiedCheckpointIO, AsyncCheckpointIO])
def test_a_drop_in_for_lightnings_plugins(tmp_path, plugin):
    io = plugin()
    assert isinstance(io, CheckpointIO)
    with pytest.raises(TypeError, match="storage_options"):
        io.save_checkpoint({}, tmp_path / "x", storage_options={"a": 1})
    with pytest.raises(FileNotFoundError):
        io.load_checkpoint(tmp_path / "nowhere.ckpt")
    io.save_checkpoint({"global_step": 7, "epoch": 2}, str(tmp_path / "new" / "x.ckpt"))
    assert io.load_checkpoint(str(tmp_path / "new" / "x.ckpt"))["global_step"] == 7
    assert read_checkpoint(tmp_path / "new" / "x.ckpt").epoch == 2
    assert json.loads((tmp_path / "new" / "x.json").read_text())["step"] == 7
    io.remove_checkpoint(str(tmp_path / "new" / "x.ckpt"))
    io.teardown()
    io.teardown()
    assert os.listdir(tmp_path / "new") == []


def test_a_base_with_a_format_of_its_own_is_refused():
    class Own(CheckpointIO):
        def save_checkpoint(self, checkpoint, path, storage_options=None):
            """Write something."""

        def load_checkpoint(self, path, map_location=None, weights_only=None):
            """Read something."""

        def remove_checkpoint(self, path):
            """Remove something."""

    with pytest.raises(TypeError, match="Own writes files of its own kind"):
        AsyncCheckpointIO(Own())
