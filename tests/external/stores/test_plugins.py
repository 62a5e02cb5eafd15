"""The plugins in Lightning's Trainer, with its own ModelCheckpoint and without the rest of ours."""

import json
import os
from pathlib import Path

import pytest
import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins import CheckpointIO
from torch.utils.data import DataLoader

from curitorch.external.schema import UnreadableFile
from curitorch.external.stores import (
    AsyncCheckpointIO,
    LocalStore,
    VerifiedCheckpointIO,
    single_file,
)

BOTH = pytest.mark.parametrize("plugin", [VerifiedCheckpointIO, AsyncCheckpointIO])


class Net(LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(4, 1)

    def training_step(self, batch, batch_idx):
        loss = self.layer(batch).pow(2).mean()
        self.log("left", 100.0 - self.global_step)
        return loss

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=0.1)


class NumPyFiles(CheckpointIO):
    """A plugin of a user's: its own format, in a directory, with an option of its own."""

    def save_checkpoint(self, checkpoint, path, storage_options=None):
        os.makedirs(path)  # noqa: PTH103
        torch.save([checkpoint, storage_options], Path(path) / "own.bin")

    def load_checkpoint(self, path, map_location=None):
        return torch.load(Path(path) / "own.bin", map_location, weights_only=False)[0]

    def remove_checkpoint(self, path):
        (Path(path) / "own.bin").unlink()
        Path(path).rmdir()


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


@BOTH
def test_model_checkpoint_keeps_working_and_every_file_has_a_sidecar_that_holds(tmp_path, plugin):
    saver = ModelCheckpoint(tmp_path / "c", monitor="left", save_top_k=2, every_n_train_steps=2)
    model = Net()
    trainer(tmp_path, plugin(), saver).fit(model, loader())
    files = sorted((tmp_path / "c").glob("*.ckpt"))
    assert {str(file) for file in files} == set(saver.best_k_models)
    for file in files:
        single_file.verify(file)
        Net.load_from_checkpoint(file)
        assert torch.load(file, mmap=True, weights_only=True)["global_step"] in (10, 12)
    assert len(os.listdir(tmp_path / "c")) == 4  # nothing else is left
    resumed = trainer(tmp_path, plugin(), max_epochs=3)
    resumed.fit(Net(), loader(), ckpt_path=saver.best_model_path)
    assert resumed.global_step == 18


@BOTH
def test_model_checkpoint_works_over_a_store_with_top_k_and_last(tmp_path, plugin):
    store = LocalStore(tmp_path / "store")
    saver = ModelCheckpoint(
        tmp_path / "c", monitor="left", save_top_k=2, every_n_train_steps=2, save_last=True
    )
    trainer(tmp_path, plugin(store), saver).fit(Net(), loader())
    assert [c.step for c in store.list()] == [10, 12]
    assert store.newest_valid().details["path"] == saver.best_model_path
    assert not list(tmp_path.rglob("c/*.ckpt"))

    for path in (saver.best_model_path, "elsewhere/last.ckpt"):  # of another process
        resumed = trainer(tmp_path, plugin(store), max_epochs=3)
        resumed.fit(Net(), loader(), ckpt_path=path)
        assert resumed.global_step == 18
    with pytest.raises(FileNotFoundError, match=r"no checkpoint that was saved as 'nowhere"):
        plugin(store).load_checkpoint("nowhere.ckpt")


@BOTH
def test_a_path_that_is_used_again_leaves_one_checkpoint_in_a_store(tmp_path, plugin):
    store = LocalStore(tmp_path)
    io = plugin(store)
    for step in (1, 2, 3):
        io.save_checkpoint({"global_step": step}, "a.ckpt")
    io.save_checkpoint({"global_step": 3}, "also 3.ckpt")
    assert io.load_checkpoint("a.ckpt")["global_step"] == 3
    assert io.load_checkpoint("also 3.ckpt")["global_step"] == 3
    assert [c.step for c in store.list()] == [3]
    io.remove_checkpoint("a.ckpt")
    io.remove_checkpoint("a.ckpt")
    assert [c.step for c in store.list()] == [3]
    io.remove_checkpoint("also 3.ckpt")
    assert store.list() == []
    io.teardown()


@BOTH
def test_another_history_in_the_store_is_not_written_over(tmp_path, plugin):
    plugin_of_another = VerifiedCheckpointIO(LocalStore(tmp_path))
    plugin_of_another.save_checkpoint({"global_step": 7}, "a.ckpt")
    io = plugin(LocalStore(tmp_path))
    with pytest.raises(RuntimeError, match="up to step 7, but this training is at step 5"):
        io.save_checkpoint({"global_step": 5}, "b.ckpt")
    assert [c.step for c in LocalStore(tmp_path).list()] == [7]
    io.teardown()


def test_an_old_checkpoint_goes_only_when_the_newer_one_is_durable(tmp_path):
    plugin = AsyncCheckpointIO()
    plugin.save_checkpoint({"global_step": 1}, tmp_path / "1.ckpt")
    plugin.save_checkpoint({"global_step": 2}, tmp_path / "2.ckpt")
    plugin.remove_checkpoint(tmp_path / "1.ckpt")
    assert (tmp_path / "1.ckpt").exists()
    plugin.wait()
    assert sorted(os.listdir(tmp_path)) == ["2.ckpt", "2.json"]
    (tmp_path / "3.ckpt").mkdir()  # saving there must fail
    plugin.save_checkpoint({"global_step": 3}, tmp_path / "3.ckpt")
    plugin.remove_checkpoint(tmp_path / "2.ckpt")
    with pytest.warns(UserWarning, match=r"Not removed.*2\.ckpt"), pytest.raises(OSError):
        plugin.wait()
    assert single_file.verify(tmp_path / "2.ckpt").step == 2
    plugin.teardown()


def test_a_failed_save_ends_the_training_at_the_next_save_and_not_silently(tmp_path):
    class Saver(ModelCheckpoint):
        def _save_checkpoint(self, trainer, filepath):
            if trainer.global_step == 4:
                os.makedirs(filepath)  # noqa: PTH103
            super()._save_checkpoint(trainer, filepath)

    saver = Saver(tmp_path / "c", every_n_train_steps=2, save_top_k=-1)
    with pytest.raises(OSError, match=r"Saving .* failed"):
        trainer(tmp_path, AsyncCheckpointIO(), saver).fit(Net(), loader())
    assert [json.loads(p.read_text())["step"] for p in (tmp_path / "c").glob("*.json")] == [2]


@BOTH
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


@BOTH
def test_a_drop_in_for_lightnings_plugins(tmp_path, plugin):
    io = plugin()
    assert isinstance(io, CheckpointIO)
    with pytest.raises(TypeError, match="storage_options"):
        io.save_checkpoint({}, tmp_path / "x", storage_options={"a": 1})
    with pytest.raises(ValueError, match=r"'s3://bucket/x\.ckpt' is an address"):
        io.save_checkpoint({}, "s3://bucket/x.ckpt")
    with pytest.raises(FileNotFoundError):
        io.load_checkpoint(tmp_path / "nowhere.ckpt")
    io.save_checkpoint({"global_step": 7, "epoch": 2}, str(tmp_path / "new" / "x.ckpt"))
    assert io.load_checkpoint(str(tmp_path / "new" / "x.ckpt"))["global_step"] == 7
    assert single_file.read(tmp_path / "new" / "x.ckpt").details["epoch"] == 2
    io.remove_checkpoint(str(tmp_path / "new" / "x.ckpt"))
    io.teardown()
    io.teardown()
    assert os.listdir(tmp_path / "new") == []


@BOTH
def test_files_of_other_programs_are_opened_too(tmp_path, plugin):
    torch.save({"global_step": 1}, tmp_path / "theirs.ckpt")
    assert plugin().load_checkpoint(tmp_path / "theirs.ckpt") == {"global_step": 1}


@BOTH
def test_lightnings_own_plugin_as_a_base_changes_nothing(tmp_path, plugin):
    io = plugin(TorchCheckpointIO())
    io.save_checkpoint({"global_step": 1}, tmp_path / "x.ckpt")
    assert io.load_checkpoint(tmp_path / "x.ckpt") == {"global_step": 1}
    assert single_file.verify(tmp_path / "x.ckpt").step == 1
    io.teardown()


@BOTH
def test_a_plugin_with_a_format_of_its_own_is_verified_and_published_whole(tmp_path, plugin):
    io = plugin(NumPyFiles())
    tensor = torch.zeros(1000)
    io.save_checkpoint({"global_step": 1, "x": tensor}, tmp_path / "a.own", {"level": 3})
    tensor += 1
    assert io.load_checkpoint(tmp_path / "a.own")["x"].sum() == 0
    assert torch.load(tmp_path / "a.own/own.bin")[1] == {"level": 3}
    assert single_file.verify(tmp_path / "a.own").step == 1
    (tmp_path / "a.own/own.bin").write_bytes(b"altered")
    with pytest.raises(UnreadableFile, match="altered"):
        io.load_checkpoint(tmp_path / "a.own")
    io.remove_checkpoint(tmp_path / "a.own")
    io.teardown()
    assert os.listdir(tmp_path) == []


def test_in_the_background_a_plugin_of_ones_own_saves_one_step_each_and_removes_late(tmp_path):
    io = AsyncCheckpointIO(NumPyFiles())
    state = [torch.zeros(2000) for _ in range(10)]
    for step in range(100):
        for tensor in state:
            tensor.fill_(step)
        io.save_checkpoint({"global_step": step, "state": state}, tmp_path / f"{step}.own")
        if step:
            io.remove_checkpoint(tmp_path / f"{step - 1}.own")
        assert list(tmp_path.glob("*.own")) or step == 0
    io.teardown()
    assert sorted(os.listdir(tmp_path)) == ["99.json", "99.own"]
    saved = NumPyFiles().load_checkpoint(tmp_path / "99.own")
    assert {float(value) for tensor in saved["state"] for value in tensor.unique()} == {99.0}


@BOTH
def test_a_plugin_of_ones_own_works_in_a_trainer(tmp_path, plugin):
    saver = ModelCheckpoint(tmp_path / "c", monitor="left", save_top_k=2, every_n_train_steps=2)
    trainer(tmp_path, plugin(NumPyFiles()), saver).fit(Net(), loader())
    assert len(os.listdir(tmp_path / "c")) == 4
    resumed = trainer(tmp_path, plugin(NumPyFiles()), max_epochs=3)
    resumed.fit(Net(), loader(), ckpt_path=saver.best_model_path)
    assert resumed.global_step == 18


@BOTH
def test_a_plugin_that_writes_elsewhere_is_refused(tmp_path, plugin):
    class Elsewhere(NumPyFiles):
        def save_checkpoint(self, checkpoint, path, storage_options=None):
            """Send it somewhere."""

    io = plugin(Elsewhere())
    with pytest.raises(TypeError, match="Elsewhere wrote nothing at the path"):
        io.save_checkpoint({}, tmp_path / "x.own")
        io.teardown()


def test_a_failed_save_of_a_plugin_of_ones_own_is_raised(tmp_path):
    class Full(NumPyFiles):
        def save_checkpoint(self, checkpoint, path, storage_options=None):
            super().save_checkpoint(checkpoint, path)
            raise OSError(28, "No space left on device")

    io = AsyncCheckpointIO(Full())
    io.save_checkpoint({}, tmp_path / "x.own")
    with pytest.raises(OSError, match="No space left"):
        io.wait()
    io.teardown()
    assert os.listdir(tmp_path) == []
