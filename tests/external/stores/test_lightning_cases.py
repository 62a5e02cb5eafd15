"""Lightning's own cases of checkpoint plugins (tests_pytorch/plugins/test_checkpoint_io_plugin.py
of 2.6), for ours in the place of its."""

from collections import Counter
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.demos.boring_classes import BoringModel
from lightning.pytorch.plugins import AsyncCheckpointIO as LightningAsyncCheckpointIO
from lightning.pytorch.plugins import CheckpointIO
from lightning.pytorch.strategies import SingleDeviceStrategy

from curitorch.external.stores import AsyncCheckpointIO, VerifiedCheckpointIO


class Own(CheckpointIO):
    """A plugin of a user's."""

    def save_checkpoint(self, checkpoint, path, storage_options=None):
        torch.save(checkpoint, path)

    def load_checkpoint(self, path, storage_options=None, weights_only=True):
        return torch.load(path, weights_only=True)

    def remove_checkpoint(self, path):
        Path(path).unlink()


def counted(plugin):
    """Count the calls of `plugin`, which works as before."""
    calls = Counter()

    def count(name, real):
        def call(*args, **kwargs):
            calls[name] += 1
            calls[name, str(args[0])] += 1
            return real(*args, **kwargs)

        return call

    for name in ("save_checkpoint", "load_checkpoint", "remove_checkpoint"):
        setattr(plugin, name, count(name, getattr(plugin, name)))
    return calls


OURS = {
    "verified": lambda: VerifiedCheckpointIO(),
    "async": lambda: AsyncCheckpointIO(),
    "verified own": lambda: VerifiedCheckpointIO(Own()),
    "async own": lambda: AsyncCheckpointIO(Own()),
}


def quiet(folder, **options):
    return Trainer(
        default_root_dir=folder,
        accelerator="cpu",
        limit_train_batches=1,
        limit_val_batches=0,
        limit_test_batches=1,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **options,
    )


@pytest.mark.parametrize("kind", OURS)
def test_the_plugin_of_a_strategy_or_of_the_trainer_is_called(tmp_path, kind):
    for version in ("", "-v1"):
        plugin = OURS[kind]()
        calls = counted(plugin)
        callback = ModelCheckpoint(dirpath=tmp_path, save_last=True)
        where = (
            {"strategy": SingleDeviceStrategy("cpu", checkpoint_io=plugin)}
            if not version
            else {"strategy": SingleDeviceStrategy("cpu"), "plugins": [plugin]}
        )
        trainer = quiet(tmp_path, callbacks=callback, max_epochs=2, **where)
        trainer.fit(BoringModel())
        assert callback.best_model_path == str(tmp_path / f"epoch=1-step=2{version}.ckpt")
        assert callback.last_model_path == str(tmp_path / f"last{version}.ckpt")
        assert (calls["save_checkpoint"], calls["remove_checkpoint"]) == (4, 1)

        trainer.test(BoringModel(), ckpt_path=callback.last_model_path, verbose=False)
        assert calls["load_checkpoint", callback.last_model_path] == 1
    names = {file.name for file in tmp_path.glob("*.ckpt")}
    assert names == {
        *("epoch=1-step=2.ckpt", "last.ckpt"),
        *("epoch=1-step=2-v1.ckpt", "last-v1.ckpt"),
    }


@pytest.mark.parametrize("kind", OURS)
def test_it_works_when_fit_and_validate_are_called_again_and_again(tmp_path, kind):
    plugin = OURS[kind]()
    calls = counted(plugin)
    callback = ModelCheckpoint(dirpath=tmp_path, save_top_k=2, monitor="step", mode="max")
    trainer = quiet(tmp_path, callbacks=callback, max_epochs=3, plugins=[plugin])
    trainer.validate(BoringModel(), verbose=False)
    trainer.fit(BoringModel())
    assert (calls["save_checkpoint"], calls["remove_checkpoint"]) == (3, 1)
    trainer.fit_loop.max_epochs = 4
    trainer.fit(BoringModel())
    assert len(list(tmp_path.glob("*.ckpt"))) == 2


def test_a_plugin_around_a_plugin_of_ours_is_that_plugin(tmp_path):
    for plugin in (
        AsyncCheckpointIO(AsyncCheckpointIO(Own())),
        AsyncCheckpointIO(VerifiedCheckpointIO(Own())),
        VerifiedCheckpointIO(VerifiedCheckpointIO(Own())),
        VerifiedCheckpointIO(AsyncCheckpointIO(Own())),
    ):
        plugin.save_checkpoint({"global_step": 1}, tmp_path / "x.ckpt")
        assert plugin.load_checkpoint(tmp_path / "x.ckpt") == {"global_step": 1}
        plugin.teardown()


@pytest.mark.parametrize("plugin", [AsyncCheckpointIO, VerifiedCheckpointIO])
def test_lightnings_asynchronous_plugin_inside_is_refused(plugin):
    with pytest.raises(TypeError, match="writes in the background itself"):
        plugin(LightningAsyncCheckpointIO())
    with pytest.raises(TypeError, match=r"'a/path'.*expected a store or a CheckpointIO"):
        plugin("a/path")
