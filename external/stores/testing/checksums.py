"""The checksums that a store records find what sizes and structure do not show."""

import os
from pathlib import Path

import pytest

from ...schema import UnreadableFile
from ..store import Store, StoredCheckpoint
from .store_case import StoreCase, file, new_folder

SIZES = [50_000, (9 << 20) + 1]  # the larger one goes in parts, or past the page cache


class Checksums(StoreCase):
    """Files that are almost what was put. Needs `damage`."""

    @pytest.mark.parametrize("size", SIZES)
    def test_a_single_altered_byte_is_found(self, store: Store, tmp_path: Path, size: int) -> None:
        content = os.urandom(size)
        put = store.put(1, {"model.ckpt": file(tmp_path, content)})
        for at in (0, size // 2, size - 1):
            altered = bytearray(content)
            altered[at] ^= 1
            self.damage(put, "model.ckpt", bytes(altered))
            _is_found(store, put, "model.ckpt", tmp_path)
        self.damage(put, "model.ckpt", content)
        assert store.newest_valid() == put

    @pytest.mark.parametrize("size", SIZES)
    def test_a_single_missing_byte_is_found(self, store: Store, tmp_path: Path, size: int) -> None:
        content = os.urandom(size)
        put = store.put(1, {"model.ckpt": file(tmp_path, content)})
        for shorter in (content[:-1], content[1:]):
            self.damage(put, "model.ckpt", shorter)
            _is_found(store, put, "model.ckpt", tmp_path)

    def test_swapped_files_are_found(self, store: Store, tmp_path: Path) -> None:
        model, optimizer, older = (os.urandom(SIZES[0]) for _ in range(3))
        store.put(1, {"model": file(tmp_path, older)})
        put = store.put(
            2, {"model": file(tmp_path, model, "a"), "optimizer": file(tmp_path, optimizer, "b")}
        )
        self.damage(put, "model", optimizer)
        self.damage(put, "optimizer", model)
        _is_found(store, put, "model", tmp_path)
        _is_found(store, put, "optimizer", tmp_path)
        self.damage(put, "optimizer", optimizer)
        self.damage(put, "model", older)  # of another step
        _is_found(store, put, "model", tmp_path)


def _is_found(store: Store, put: StoredCheckpoint, name: str, folder: Path) -> None:
    with pytest.raises(UnreadableFile, match=name):
        store.fetch(put, name, new_folder(folder))
    any_of_them = "|".join(put.files)
    with pytest.raises(UnreadableFile, match=any_of_them):
        store.verify(put)
    with pytest.warns(UserWarning, match=any_of_them):
        newest = store.newest_valid()
    assert newest != put
