"""What becomes of FSDP2's checkpoints in parts when they are slow, fail, or a process dies."""

import threading
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch.distributed.tensor import Shard, distribute_tensor

from curitorch.external.adapter import sharded
from curitorch.external.adapter.sharded_saving import PartsSaver, read_parts
from curitorch.external.completion import keep_model
from curitorch.external.stores import LocalStore
from curitorch.external.stores.retention import Retention
from tests.external.adapter import world_fits as fits
from tests.external.adapter.torchrun import torchrun

HERE = Path(__file__)


def launch(folder, *names):
    """Train these cases in two processes; returns the exit status and what was printed."""
    done = torchrun(HERE.with_name("sharded_fits.py"), folder, *names, seconds=280)
    return done.returncode, done.stdout + done.stderr


def steps(folder):
    return [each.step for each in LocalStore(folder).list()]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    status, output = launch(folder, "whole=goes_on")
    assert status == 0, output[-5000:]
    return fits.outcome(folder / "whole")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_parts_are_written_while_training_goes_on_and_hold_what_was_then(tmp_path, whole):
    failing = ["failing", "failing_in_the_background", "failing_at_the_end"]
    status, output = launch(tmp_path, "slow", "in_turn", "stopping", *failing)
    assert status == 0, output[-5000:]
    for name in ("slow", "in_turn"):
        assert fits.same(fits.outcome(tmp_path / name), whole)
        assert steps(tmp_path / name) == [4, 8, 12]
    LocalStore(tmp_path / "slow").delete(12)  # so that it goes on from what was written late
    for name in failing:
        assert 8 not in steps(tmp_path / name)
    assert "rank 0 found: The parts of step 8 were not written. rank 1: [Errno 28]" in output
    assert "rank 0 found: [Errno 28] No space left on device" in output
    assert "rank 1 found: Rank 0 could not write a checkpoint" in output
    again = ["slow", "stopping", *failing]
    status, output = launch(tmp_path, *(f"{name}=goes_on" for name in again))
    assert status == 0, output[-5000:]
    for name in again:
        assert fits.same(fits.outcome(tmp_path / name), whole), name


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", ["killed", "dies"])
def test_a_process_that_dies_alone_leaves_the_checkpoint_before(name, tmp_path, whole):
    status, output = launch(tmp_path, name)
    assert status != 0
    assert steps(tmp_path / name) == [4]
    if name == "dies":
        assert (
            "The last whole step could not be saved after the error: each process has only parts "
            "of it, and ranks [1] did not come within 1 seconds. The checkpoints "
            "before are as they were: a resume goes on from the newest."
        ) in output
    status, output = launch(tmp_path, f"{name}=goes_on")
    assert status == 0, output[-5000:]
    assert fits.same(fits.outcome(tmp_path / name), whole)
    assert steps(tmp_path / name) == [4, 8, 12]
    assert not [*tmp_path.glob("*/.draft*")]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_training_whose_end_is_in_parts_leaves_a_whole_model(tmp_path, whole):
    status, output = launch(tmp_path, "last_validation")
    assert status == 0, output[-5000:]
    store, model = LocalStore(tmp_path / "last_validation"), tmp_path / "model.ckpt"
    assert "rest.ckpt" in store.newest_valid().files
    keep_model(store, 12, [model], journal=None)
    found = torch.load(model, weights_only=True)
    assert fits.same(found["state_dict"], whole["weights"])
    assert fits.same(found["optimizer_states"], whole["optimizers"])


@pytest.fixture(
    params=[
        "cpu",
        pytest.param(
            "cuda",
            marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"),
        ),
    ]
)
def mesh(request, tmp_path):
    """This process alone, with a group of its own."""
    kinds = {"cpu": "gloo", "cuda": "cpu:gloo,cuda:nccl"}
    dist.init_process_group(
        kinds[request.param], f"file://{tmp_path}/meeting", rank=0, world_size=1
    )
    yield dist.init_device_mesh(request.param, (1,))
    dist.destroy_process_group()


def test_parts_are_copied_before_they_change(tmp_path, mesh, monkeypatch):
    store, later, saved = LocalStore(tmp_path / "store"), threading.Event(), []
    write = sharded.write_shards
    monkeypatch.setattr(sharded, "write_shards", lambda *a, **o: later.wait() and write(*a, **o))
    saver = PartsSaver(store, asynchronous=True, lease=None, retention=Retention(newest=0))
    weight = distribute_tensor(torch.zeros(500, 100, device=mesh.device_type), mesh, [Shard(0)])
    for step in (1, 2):  # into new memory, and into the same
        weight += 1
        later.clear()
        state = {"state_dict": {"weight": weight}, "step": step}
        saver.save(step, state, details={}, then=lambda stored: saved.append(stored.step))
        weight += 1000
        assert saved == [*range(1, step)]
        later.set()
        saver.wait()
        weight -= 1000
    saver.close()
    assert saved == [1, 2]
    for step in (1, 2):
        state = read_parts(store.root / f"step-{step:08d}", mesh=None, trusted=False)
        assert state["step"] == step
        assert state["state_dict"]["weight"].eq(step).all()
