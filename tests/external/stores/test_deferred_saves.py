"""Deferred copies through the saver and Lightning's Trainer: every file is of one single step."""

import time

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins import CheckpointIO
from torch.utils.data import DataLoader

from curitorch.external.stores import AsyncCheckpointIO, LocalStore, Saver
from curitorch.external.stores.retention import Retention
from curitorch.external.stores.saving.deferred import DeferredCopy, TensorsChanged

BIG = 50_000  # elements; more than is copied at once


class Training:
    """Each step adds one to every element of every tensor, and to the buffer in between."""

    def __init__(self, tensors=6):
        self.parameters = [torch.nn.Parameter(torch.zeros(BIG)) for _ in range(tensors)]
        self.optimizer = torch.optim.SGD(self.parameters, lr=1.0, momentum=1e-9)
        self.buffer = torch.zeros(BIG)
        self.steps = 0

    def step(self):
        self.buffer += 1
        for parameter in self.parameters:
            parameter.grad = torch.full_like(parameter, -1.0)
        self.optimizer.step()
        self.steps += 1

    def state(self):
        return {
            "steps": self.steps,
            "tensors": [*(p.detach() for p in self.parameters), self.buffer],
            "optimizer": self.optimizer.state_dict(),
        }


def values(saved):
    extremes = [value.item() for tensor in saved["tensors"] for value in tensor.aminmax()]
    return {saved["steps"], *extremes}


def load(store, step):
    return torch.load(store.root / f"step-{step:08d}" / "model.ckpt")


@pytest.mark.parametrize(
    "saves", [60, pytest.param(1000, marks=[pytest.mark.slow, pytest.mark.timeout(1800)])]
)
def test_a_thousand_deferred_saves_while_every_step_changes_every_tensor(
    tmp_path, one_thread, saves
):
    store = LocalStore(tmp_path)
    saver = Saver(store, asynchronous=True, deferred=True, retention=Retention(newest=2))
    training = Training()
    training.step()
    for _ in range(saves):
        step = training.steps
        saver.save(step, training.state())
        training.step()
        training.step()
        saver.wait()
        assert values(load(store, step)) == {step}
    saver.close()


def test_smaller_and_larger_states_use_the_same_memory(tmp_path):
    store = LocalStore(tmp_path)
    saver = Saver(store, asynchronous=True, deferred=True)
    for step, tensors in enumerate([3, 1, 40]):
        training = Training(tensors)
        training.step()
        saver.save(step, training.state())
        training.step()
    saver.close()
    assert [len(load(store, step)["tensors"]) for step in range(3)] == [4, 2, 41]
    assert all(values(load(store, step)) == {1} for step in range(3))


@pytest.fixture
def late(monkeypatch):
    """Keep the threads from copying for a moment."""
    real = DeferredCopy._copy
    ready = []

    def copy(self):
        while not ready:
            time.sleep(0.001)
        real(self)

    monkeypatch.setattr(DeferredCopy, "_copy", copy)
    yield ready
    ready.append(True)


def test_a_change_that_did_not_ask_makes_the_save_fail_and_the_next_one_works(tmp_path, late):
    store = LocalStore(tmp_path)
    saver = Saver(store, asynchronous=True, deferred=True)
    training = Training()
    training.step()
    saver.save(1, training.state())
    with torch.no_grad():
        training.parameters[2].mul_(2)
    saver.poll()  # does not wait
    assert saver.is_busy
    late.append("now")
    with pytest.raises(TensorsChanged, match=r"Saving step 1 failed: 1 tensors .* were changed"):
        saver.wait()
    assert store.list() == []
    saver.save(2, training.state())
    saver.close()
    assert [c.step for c in store.list()] == [2]


def test_what_holds_first_may_change_tensors_between_steps(tmp_path, late):
    store = LocalStore(tmp_path)
    saver = Saver(store, asynchronous=True, deferred=True)
    saver.hold()
    training = Training()
    training.step()
    saver.save(1, training.state())
    late.append("now")
    saver.hold()
    for parameter in training.parameters:
        parameter.data.clamp_(0, 0.01)
    saver.close()
    assert values(load(store, 1)) == {1}


def test_a_killed_writer_process_is_an_error_and_the_next_save_starts_another(tmp_path):
    store = LocalStore(tmp_path)
    saver = Saver(store, asynchronous=True, deferred=True)
    training = Training()
    training.step()
    saver.save(1, training.state())
    saver.wait()
    process = saver._background._process
    process.kill()
    process.wait()
    with pytest.raises(OSError, match="ended with -9"):
        saver.save(2, training.state())
        saver.wait()
    saver.save(3, training.state())
    saver.close()
    assert [c.step for c in store.list()] == [1, 3]


class Net(LightningModule):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(BIG))
        self.register_buffer("seen", torch.zeros(BIG))

    def training_step(self, batch, batch_idx):
        self.seen += 1
        return -self.weight.sum()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=1.0, momentum=1e-9)


def test_lightnings_trainer_goes_on_while_it_is_copied_and_every_file_is_of_one_step(
    tmp_path, monkeypatch
):
    deferred, begun = [], []
    real = DeferredCopy.__init__

    def init(self, *arguments, **options):
        real(self, *arguments, **options)
        deferred.append(self.bytes)

    class Watched(Net):
        def on_after_backward(self):
            # Gradients are there before anything has waited for the copy.
            begun.append(held == [])

    held = []
    real_hold = DeferredCopy.hold
    monkeypatch.setattr(DeferredCopy, "__init__", init)
    monkeypatch.setattr(DeferredCopy, "hold", lambda self: (held.append(1), real_hold(self)))
    plugin = AsyncCheckpointIO(deferred=True)
    saver = ModelCheckpoint(tmp_path / "c", every_n_train_steps=1, save_top_k=-1)
    trainer = Trainer(
        max_steps=12,
        accelerator="cpu",
        default_root_dir=tmp_path,
        plugins=[plugin],
        callbacks=[saver],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    Watched.on_train_batch_start = lambda self, *rest: held.clear()
    trainer.fit(Watched(), DataLoader(torch.ones(12, 1)))
    plugin.teardown()
    assert deferred == 12 * [2 * 4 * BIG]  # the weight and its momentum; not what is seen
    assert all(begun)
    paths = sorted((tmp_path / "c").glob("*.ckpt"))
    assert len(paths) == 12
    for path in paths:
        saved = torch.load(path, weights_only=False)
        expected = {saved["global_step"]}
        assert {v.item() for t in saved["state_dict"].values() for v in t.aminmax()} == expected


def test_a_format_of_its_own_cannot_be_deferred(tmp_path):
    class Own(CheckpointIO):
        def save_checkpoint(self, checkpoint, path, storage_options=None):
            """Write something."""

        def load_checkpoint(self, path, map_location=None, weights_only=None):
            """Read something."""

        def remove_checkpoint(self, path):
            """Remove something."""

    with pytest.raises(ValueError, match="Own writes a format of its own"):
        AsyncCheckpointIO(Own(), deferred=True)
    with pytest.raises(ValueError, match="without asynchronous"):
        Saver(LocalStore(tmp_path), deferred=True)


TRAINER = """
import sys, torch
from curitorch.external.stores import LocalStore, Saver
saver = Saver(LocalStore(sys.argv[1]), asynchronous=True, deferred=True)
parameters = [torch.nn.Parameter(torch.zeros(500_000)) for _ in range(4)]
optimizer = torch.optim.SGD(parameters, lr=1.0, momentum=1e-9)
for step in range(1, 10**9):
    for parameter in parameters:
        parameter.grad = torch.full_like(parameter, -1.0)
    optimizer.step()
    saver.save(step, {"steps": step, "tensors": [p.detach() for p in parameters]})
    if step == 4:
        print("saving", flush=True)
"""


@pytest.mark.parametrize(
    "moments", [3, pytest.param(30, marks=[pytest.mark.slow, pytest.mark.timeout(1800)])]
)
def test_kill_9_of_the_trainer_loses_at_most_the_save_under_way_and_mixes_nothing(
    tmp_path, trainers, moments
):
    for moment in range(moments):
        root = tmp_path / str(moment)
        with trainers.start(TRAINER, str(root)) as trainer:
            assert trainer.said.readline() == "saving\n"
            time.sleep(moment * 0.007)  # another moment each time
            trainers.kill(trainer)
            assert trainer.said.read() == ""  # its writer has ended too, with what it was given
        store = LocalStore(root)
        with store.lease("after"):
            steps = [c.step for c in store.list()]
            assert len(steps) >= 3
            assert steps == list(range(1, len(steps) + 1))
            for step in steps:
                store.verify(store.list()[step - 1])
                assert values(load(store, step)) == {step}
