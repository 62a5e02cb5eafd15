"""Clones of files on a file system that has them, and how a local store uses them."""

import errno
import os

import pytest

from curitorch.external.schema import UnreadableFile
from curitorch.external.stores import LocalStore
from curitorch.external.stores.local.clone import clone
from tests.external.stores.disks import cloning_disk

MB = 1 << 20


@pytest.fixture
def disk(tmp_path):
    with cloning_disk(tmp_path / "disk") as disk:
        yield disk


def free(disk):
    os.sync()
    about = os.statvfs(disk)
    return about.f_bfree * about.f_bsize


def source(folder, size=8 * MB):
    path = folder / "source"
    path.write_bytes(os.urandom(size))
    return path


def test_a_clone_takes_no_room_and_is_a_file_of_its_own(disk):
    given = source(disk)
    before, content = free(disk), given.read_bytes()
    assert clone(given, disk / "clone")
    assert before - free(disk) < MB
    with given.open("r+b") as file:
        file.write(b"changed")
    assert (disk / "clone").read_bytes() == content
    with pytest.raises(FileExistsError):
        clone(given, disk / "clone")


def test_where_there_are_no_clones_nothing_is_left(tmp_path):
    given = source(tmp_path, 5)
    in_memory = os.memfd_create("model")
    try:
        for path in (f"/proc/self/fd/{in_memory}", given, "/proc/self/status"):
            if not clone(tmp_path / path, tmp_path / "clone"):  # the disk below may have them
                assert not (tmp_path / "clone").exists()
            (tmp_path / "clone").unlink(missing_ok=True)
    finally:
        os.close(in_memory)
    with pytest.raises(FileNotFoundError):
        clone(tmp_path / "nowhere", tmp_path / "clone")
    assert not (tmp_path / "clone").exists()


def test_a_pipe_is_not_opened_and_keeps_its_reader(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    assert not clone(tmp_path / "pipe", tmp_path / "clone")  # opening it would wait for ever
    assert not (tmp_path / "clone").exists()


def test_what_a_store_keeps_is_a_clone_of_what_was_put(disk, tmp_path):
    given = source(disk)
    before, content = free(disk), given.read_bytes()
    with LocalStore(disk / "root") as store:
        put = store.put(1, {"m": given})
        assert before - free(disk) < MB
        with given.open("r+b") as file:
            file.write(b"changed")
        store.verify(put)
        assert store.fetch(put, "m", tmp_path).read_bytes() == content
        with pytest.raises(UnreadableFile, match="not what its writer recorded"):
            store.put(2, {"m": given}, known=put.files)
        assert store.list() == [put]


def test_the_same_model_again_takes_no_room_without_hard_links_either(disk, tmp_path, monkeypatch):
    with LocalStore(disk / "root") as store:
        put = store.put(1, {"m": source(disk)})
        before = free(disk)

        def no_links(old, new, **options):
            raise OSError(errno.EMLINK, "Too many links")

        monkeypatch.setattr(os, "link", no_links)
        again = store.put(2, {"m": store.fetch(put, "m", tmp_path)})
        store.delete(1)
        store.verify(again)
        assert before - free(disk) < MB
