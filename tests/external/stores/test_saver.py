"""Saving states into stores of every kind, at once and in the background."""

import os
import pickle
import signal
import time

import pytest
import torch

from curitorch.external.stores import LocalStore, Saver
from curitorch.external.stores.retention import Retention
from curitorch.external.stores.store import CheckpointExists, LeaseLost, Store, StoreError
from curitorch.external.stores.testing.running_service import RunningService
from tests.processes import has_ended

BOTH = pytest.mark.parametrize("asynchronous", [False, True])


@pytest.fixture(params=["local", "tcp"])
def store(request, tmp_path):
    if request.param == "local":
        yield LocalStore(tmp_path / "store")
        return
    (tmp_path / "service").mkdir()
    with RunningService(tmp_path / "service") as service, service.store("job") as store:
        yield store


@BOTH
def test_a_state_goes_into_a_store_and_comes_back(tmp_path, store, asynchronous):
    saver = Saver(store, asynchronous=asynchronous)
    done = []
    tensor = torch.zeros(300_000)
    saver.save(3, {"x": tensor}, details={"epoch": 1}, then=done.append)
    tensor += 1
    saver.close()
    saver.save(4, {"x": tensor}, name="other.pt")
    saver.close()
    assert [(c.step, c.details, list(c.files)) for c in store.list()] == [
        (3, {"epoch": 1}, ["model.ckpt"]),
        (4, {}, ["other.pt"]),
    ]
    assert done == [store.list()[0]]
    found = store.fetch(done[0], "model.ckpt", tmp_path)
    assert torch.load(found, weights_only=True)["x"].sum() == 0


@BOTH
def test_only_what_the_retention_keeps_stays_and_the_newest_always(store, asynchronous):
    kept = Retention(newest=1, best=1, monitor="loss", every=4)
    saver = Saver(store, asynchronous=asynchronous, retention=kept)
    for step, loss in enumerate([9.0, 3.0, 8.0, 7.0, 6.0, 5.0]):
        saver.save(step, [step], details={"metrics": {"loss": loss}})
    saver.close()
    assert [c.step for c in store.list()] == [0, 1, 4, 5]


@BOTH
def test_errors_keep_their_kind_and_say_which_save_failed(store, asynchronous):
    saver = Saver(store, asynchronous=asynchronous)
    saver.save(1, [1])
    with pytest.raises(CheckpointExists):
        saver.save(1, [2])
        saver.wait()
    with store.lease("first") as lost:
        pass
    with store.lease("second"):
        late = Saver(store, asynchronous=asynchronous, lease=lost)
        with pytest.raises(LeaseLost):
            late.save(2, [2])
            late.wait()
    assert [c.step for c in store.list()] == [1]
    saver.close()
    late.close()
    with pytest.raises(ValueError, match="step -1"):
        saver.save(-1, [])


class Unpicklable(LocalStore):
    def __reduce__(self):
        raise TypeError("it holds a socket")


class Unopenable(LocalStore):
    def __reduce__(self):
        return open_elsewhere, (os.getpid(), self.root)


def open_elsewhere(process, root):
    if os.getpid() != process:
        raise OSError("no such place")
    return Unopenable(root)


@pytest.mark.parametrize(
    ("kind", "error", "match"),
    [(Unpicklable, TypeError, "it holds a socket"), (Unopenable, StoreError, "no such place|open")],
)
def test_a_store_that_another_process_cannot_open_says_so(tmp_path, kind, error, match):
    saver = Saver(kind(tmp_path), asynchronous=True)
    with pytest.raises(error, match=match):
        saver.save(1, [1])
        saver.close()
    Saver(kind(tmp_path)).save(1, [1])
    assert [c.step for c in LocalStore(tmp_path).list()] == [1]


def test_a_store_of_the_users_own_module_is_opened_by_the_process_that_writes(
    tmp_path, monkeypatch
):
    (tmp_path / "users_store.py").write_text(
        "from curitorch.external.stores import LocalStore\nclass Mine(LocalStore): pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    import users_store

    saver = Saver(users_store.Mine(tmp_path / "store"), asynchronous=True)
    saver.save(1, [1])
    saver.close()
    assert [c.step for c in LocalStore(tmp_path / "store").list()] == [1]


TRAINER = """
import pickle, sys, torch
from curitorch.external.stores import Saver
store = pickle.loads(bytes.fromhex(sys.argv[1]))
saver = Saver(store, asynchronous=True)
state = [torch.zeros(500_000) for _ in range(4)]
step = 0
while True:
    step += 1
    for tensor in state:
        tensor.fill_(step)
    saver.save(step, {"step": step, "state": state})
    if step == 1:
        print(saver._background._process.pid, flush=True)
    print(step, flush=True)
"""


def killed_while_saving(trainers, store: Store, folder, delay: float) -> None:
    """Kill a trainer that saves again and again; what it staged lands, and nothing is torn."""
    with trainers.start(TRAINER, pickle.dumps(store).hex()) as trainer:
        writer = int(trainer.said.readline())
        for _ in range(2):
            trainer.said.readline()
        time.sleep(delay)
        trainers.kill(trainer)
        staged = max(2, *(int(line) for line in trainer.said.read().splitlines() or ["2"]))
    deadline = time.monotonic() + 120
    while not has_ended(writer):
        assert time.monotonic() < deadline, "the writer goes on for ever"
        time.sleep(0.02)
    steps = [c.step for c in store.list()]
    assert len(steps) in (staged, staged + 1)  # it may have been killed before it said so
    assert steps == list(range(1, len(steps) + 1))
    newest = store.newest_valid()
    assert newest.step >= staged
    content = torch.load(store.fetch(newest, "model.ckpt", folder))
    assert all(bool((tensor == newest.step).all()) for tensor in content["state"])
    for checkpoint in store.list():
        store.verify(checkpoint)
        store.delete(checkpoint.step)


def test_what_a_killed_trainer_has_staged_lands_in_the_store(tmp_path, store, trainers):
    for moment in range(2):
        killed_while_saving(trainers, store, tmp_path, delay=moment * 0.02)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_what_a_killed_trainer_has_staged_lands_at_100_moments(tmp_path, store, trainers):
    for moment in range(100):
        killed_while_saving(trainers, store, tmp_path, delay=moment * 0.003)


def test_a_killed_writer_loses_its_save_alone_and_the_next_one_starts_another(store):
    saver = Saver(store, asynchronous=True)
    saver.save(1, [1])
    saver.wait()
    os.kill(saver._background._process.pid, signal.SIGKILL)
    with pytest.raises(OSError, match=r"Saving step 2 failed: the process .* ended with -9"):
        saver.save(2, [2])
        saver.wait()
    saver.save(3, [3])
    saver.close()
    steps = [c.step for c in store.list()]
    assert steps[0] == 1
    assert steps[-1] == 3
