"""Saves that share what did not change: what is written, what is kept, what comes back."""

import itertools
import os
import time

import pytest
import torch

from curitorch.external.schema import UnreadableFile
from curitorch.external.stores import LocalStore, Saver
from curitorch.external.stores.local.whole import materialise
from curitorch.external.stores.retention import Retention
from curitorch.external.stores.saving.torch_image import lay_out
from curitorch.external.stores.store import CheckpointExists
from curitorch.external.stores.testing.running_service import RunningService

BOTH = pytest.mark.parametrize("asynchronous", [False, True])
BACKBONE = 270_000  # elements of each tensor, a little more than a mebibyte


class Model:
    """A backbone of four megabytes in four tensors, and a head of one with its optimizer's."""

    def __init__(self):
        self.backbone = {f"backbone{n}": torch.randn(BACKBONE) for n in range(4)}
        self.head = {name: torch.randn(100_000) for name in ("head", "exp_avg")}
        self.steps = 0

    def train(self):
        self.steps += 1
        for tensor in self.head.values():
            tensor += 1
        return self.state()

    def state(self):
        return {"steps": self.steps, **self.backbone, **self.head}


def saver(store, asynchronous=False, **options):
    return Saver(store, asynchronous=asynchronous, share_unchanged=True, **options)


def plain(state):
    image = lay_out(state)
    content = bytearray(image.size)
    image.copy_into(content)
    return bytes(content)


def whole(store, step, folder):
    [checkpoint] = [c for c in store.list() if c.step == step]
    return store.fetch(checkpoint, "model.ckpt", folder).read_bytes()


def used(root):
    """Return the bytes of all files, each counted once however many names it has."""
    found = {}
    for path in root.rglob("*"):
        if path.is_file():
            about = path.stat()
            found[about.st_ino] = about.st_size
    return sum(found.values())


@BOTH
def test_what_is_written_grows_with_what_changed_and_comes_back_byte_for_byte(
    tmp_path, asynchronous
):
    store, model = LocalStore(tmp_path / "s"), Model()
    saving = saver(store, asynchronous)
    expected, sizes = {}, []
    for _ in range(6):
        state = model.train()
        expected[model.steps] = plain(state)
        saving.save(model.steps, state, details={"epoch": 1})
        saving.wait()
        sizes.append(used(store.root))
    saving.close()
    assert sizes[0] > 5_000_000  # all, as a plain file
    grown = [after - before for before, after in itertools.pairwise(sizes)]
    assert max(grown) < 820_000  # the head and its state are 800,000
    assert [c.step for c in store.list()] == [1, 2, 3, 4, 5, 6]
    assert store.list()[3].details == {"epoch": 1}
    for step, content in expected.items():
        (tmp_path / "here").mkdir(exist_ok=True)
        assert whole(store, step, tmp_path / "here") == content
    loaded = torch.load(tmp_path / "here" / "model.ckpt")
    assert loaded["steps"] == 6
    assert loaded["backbone2"].equal(model.backbone["backbone2"])
    found = store.fetch_newest_valid("model.ckpt", tmp_path / "here")
    assert found[1].read_bytes() == expected[6]


@BOTH
def test_what_is_unchanged_is_decided_by_content(tmp_path, asynchronous):
    store, model = LocalStore(tmp_path / "s"), Model()
    saving = saver(store, asynchronous)
    saving.save(1, model.train())
    saving.wait()
    before = used(store.root)
    model.backbone = {name: tensor.clone() for name, tensor in model.backbone.items()}
    model.backbone["backbone1"].view(torch.uint8)[-1] ^= 1  # one bit, in place
    saving.save(2, model.train())
    saving.close()
    changed = 800_000 + 4 * BACKBONE
    assert changed < used(store.root) - before < changed + 20_000
    assert whole(store, 2, tmp_path) == plain(model.state())


@BOTH
def test_a_file_with_nothing_to_share_is_a_plain_one(tmp_path, asynchronous):
    store, model = LocalStore(tmp_path), Model()
    saving = saver(store, asynchronous)
    for step in (1, 2):
        for tensor in model.backbone.values():
            tensor += 1
        saving.save(step, model.train())
    saving.close()
    for step in (1, 2):
        loaded = torch.load(tmp_path / f"step-{step:08d}" / "model.ckpt", mmap=True)
        assert loaded["steps"] == step


@BOTH
def test_retention_never_takes_bytes_that_a_kept_checkpoint_needs(tmp_path, asynchronous):
    store, model = LocalStore(tmp_path / "s"), Model()
    saving = saver(store, asynchronous, retention=Retention(newest=1))
    for _ in range(5):
        saving.save(model.steps, model.train())
        saving.wait()
        [checkpoint] = store.list()
        store.verify(checkpoint)
        assert whole(store, checkpoint.step, tmp_path) == plain(model.state())
    saving.close()
    assert used(store.root) < 5_000_000 + 2 * 820_000  # the oldest head is still in a shared file
    store.delete(model.steps - 1)
    assert used(store.root) < 1000


def test_a_file_with_little_left_that_is_needed_is_not_shared_any_longer(tmp_path):
    store, model = LocalStore(tmp_path / "s"), Model()
    saving = saver(store, retention=Retention(newest=1))
    for thawed in ([], ["backbone0"], ["backbone1"], ["backbone2"], ["backbone3"], []):
        for name in thawed:
            model.backbone[name] += 1
        saving.save(model.steps, model.train())
        assert used(store.root) < 2 * len(plain(model.state())) + 820_000
        assert whole(store, store.list()[0].step, tmp_path) == plain(model.state())
    assert "model.ckpt.of-00000000" not in store.list()[0].files


@BOTH
def test_another_process_goes_on_sharing_but_never_with_what_is_damaged(tmp_path, asynchronous):
    store, model = LocalStore(tmp_path / "s"), Model()
    first = saver(store, asynchronous)
    first.save(1, model.train())
    first.close()
    second = saver(LocalStore(tmp_path / "s"), asynchronous)
    second.save(2, model.train())
    second.close()
    assert used(store.root) < 5_000_000 + 2 * 820_000
    shared = store.root / "step-00000002" / "model.ckpt.of-00000001"
    content = bytearray(shared.read_bytes())
    content[len(content) // 2] ^= 1
    shared.write_bytes(content)
    third = saver(LocalStore(tmp_path / "s"), asynchronous)
    third.save(3, model.train())
    third.close()
    assert "model.ckpt" in store.list()[-1].files  # all of it, anew
    assert whole(store, 3, tmp_path) == plain(model.state())
    with pytest.raises(UnreadableFile, match=r"model\.ckpt.* altered"):
        whole(store, 2, tmp_path)
    store.delete(3)
    with pytest.warns(UserWarning, match="Passed over a checkpoint"):
        assert store.fetch_newest_valid("model.ckpt", tmp_path) is None


@BOTH
def test_a_checkpoint_before_that_was_deleted_is_not_missed(tmp_path, asynchronous):
    store, model = LocalStore(tmp_path / "s"), Model()
    saving = saver(store, asynchronous)
    saving.save(1, model.train())
    saving.wait()
    store.delete(1)
    saving.save(2, model.train())
    saving.close()
    assert whole(store, 2, tmp_path) == plain(model.state())


def test_one_that_is_deleted_while_the_next_is_saved_is_not_missed(tmp_path, monkeypatch):
    store, model = LocalStore(tmp_path / "s"), Model()
    saving = saver(store)
    saving.save(1, model.train())
    put = LocalStore.put

    def late(self, step, files, **options):
        if len(files) > 2:
            self.delete(1)
        return put(self, step, files, **options)

    monkeypatch.setattr(LocalStore, "put", late)
    saving.save(2, model.train())
    assert [c.step for c in store.list()] == [2]
    assert whole(store, 2, tmp_path) == plain(model.state())


def test_a_step_that_is_there_is_for_the_store_to_refuse(tmp_path):
    store, model = LocalStore(tmp_path), Model()
    saving = saver(store)
    saving.save(1, model.train())
    with pytest.raises(CheckpointExists):
        saving.save(1, model.train())
    assert [c.step for c in store.list()] == [1]


@BOTH
def test_a_store_that_cannot_share_gets_plain_files(tmp_path, asynchronous):
    model = Model()
    with RunningService(tmp_path) as service, service.store("job") as store:
        saving = saver(store, asynchronous)
        saving.save(1, model.train())
        saving.save(2, model.train())
        saving.close()
        assert [list(c.files) for c in store.list()] == [["model.ckpt"]] * 2
        assert whole(store, 2, tmp_path) == plain(model.state())


def test_a_plain_file_is_made_on_request_durable_or_not_at_all(tmp_path):
    store, model = LocalStore(tmp_path / "s"), Model()
    saving = saver(store)
    for step in (1, 2):
        saving.save(step, model.train())
    first, second = store.list()
    target = tmp_path / "out" / "plain.ckpt"
    made = materialise(store, first, "model.ckpt", target)
    assert made == first.files["model.ckpt"]
    made = materialise(store, second, "model.ckpt", target)
    assert (made.bytes, target.read_bytes()) == (target.stat().st_size, plain(model.state()))
    with pytest.raises(UnreadableFile, match=r"no file 'other'; it has 'model\.ckpt"):
        materialise(store, second, "other", target)
    (store.root / "step-00000002" / "model.ckpt.of-00000002").write_bytes(b"x" * made.bytes)
    with pytest.raises(UnreadableFile, match="altered"):
        materialise(store, second, "model.ckpt", target)
    assert target.read_bytes() == plain(model.state())
    assert os.listdir(tmp_path / "out") == ["plain.ckpt"]


def test_a_file_of_parts_can_be_put_elsewhere_and_made_whole_there(tmp_path):
    store, model = LocalStore(tmp_path / "s"), Model()
    saving = saver(store)
    for step in (1, 2):
        saving.save(step, model.train())
    second = store.list()[1]
    (tmp_path / "service").mkdir()
    with RunningService(tmp_path / "service") as service, service.store("job") as remote:
        files = {name: store.fetch(second, name, tmp_path) for name in second.files}
        there = remote.put(2, files)
        materialise(remote, there, "model.ckpt", tmp_path / "plain.ckpt")
    assert (tmp_path / "plain.ckpt").read_bytes() == plain(model.state())


TRAINER = """
import sys, torch
from curitorch.external.stores import LocalStore, Saver
from curitorch.external.stores.retention import Retention
saver = Saver(
    LocalStore(sys.argv[1]),
    asynchronous=sys.argv[2] == "True",
    share_unchanged=True,
    retention=Retention(newest=3),
)
backbone = torch.arange(1_000_000.0)
head = torch.zeros(300_000)
for step in range(1, 10**9):
    head += 1
    if step % 5 == 0:
        backbone += 1
    saver.save(step, {"steps": step, "backbone": backbone, "head": head})
    if step == 4:
        print("saving", flush=True)
"""


@BOTH
@pytest.mark.parametrize("moments", [3, pytest.param(25, marks=pytest.mark.slow)])
def test_kill_9_in_the_middle_leaves_whole_checkpoints_and_no_leftovers(
    tmp_path, trainers, moments, asynchronous
):
    for moment in range(moments):
        root = tmp_path / str(moment)
        with trainers.start(TRAINER, str(root), str(asynchronous)) as trainer:
            assert trainer.said.readline() == "saving\n"
            time.sleep(moment * 0.009)  # another moment each time
        store = LocalStore(root)
        existing = store.list()
        assert len(existing) >= 1
        for checkpoint in existing:
            folder = tmp_path / "here" / str(checkpoint.step)
            folder.mkdir(parents=True, exist_ok=True)
            try:
                saved = torch.load(store.fetch(checkpoint, "model.ckpt", folder))
            except UnreadableFile:  # the writer lives on, and prunes
                assert checkpoint not in store.list()
                continue
            assert saved["steps"] == checkpoint.step
            assert {v.item() for v in saved["head"].aminmax()} == {checkpoint.step}
            assert saved["backbone"][0].item() == checkpoint.step // 5
        while [p for p in root.iterdir() if p.name.startswith(".draft")]:
            LocalStore(root)  # sweeps what the dead left; the writer ends what it was given
        newest = store.newest_valid()
        assert newest.step >= existing[-1].step
