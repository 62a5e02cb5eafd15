"""What was altered behind the store's back is found, passed over with a warning, and replaced."""

import os
from pathlib import Path

import pytest

from ...schema import UnreadableFile
from ..retention import Retention
from ..store import Store, StoredCheckpoint
from .store_case import StoreCase, contents, file

SIZE = 50_000
WAYS = ["altered", "torn", "longer", "emptied", "missing"]


class Damage(StoreCase):
    """Files and sidecars that are not what was put. Needs `damage` and `damage_sidecar`."""

    @pytest.mark.parametrize("way", WAYS)
    def test_the_newest_valid_is_an_older_one_and_a_warning_says_why(
        self, store: Store, tmp_path: Path, way: str
    ) -> None:
        older, newer = self._two(store, tmp_path)
        self._damage(newer, way)
        with pytest.warns(UserWarning, match=r"model\.ckpt"):
            assert store.newest_valid() == older
        with pytest.raises(UnreadableFile, match=r"model\.ckpt"):
            store.verify(newer)
        with pytest.raises(UnreadableFile, match=r"model\.ckpt"):
            store.fetch(newer, "model.ckpt", tmp_path)
        with pytest.warns(UserWarning, match=r"model\.ckpt"):
            found = store.fetch_newest_valid("model.ckpt", tmp_path)
        assert found is not None
        assert found[0] == older
        assert set(contents(store, older, tmp_path)) == {"model.ckpt", "small"}

    @pytest.mark.filterwarnings("ignore::UserWarning")
    @pytest.mark.parametrize("way", WAYS)
    def test_a_broken_checkpoint_makes_way_for_one_of_the_same_step(
        self, store: Store, tmp_path: Path, way: str
    ) -> None:
        _, newer = self._two(store, tmp_path)
        self._damage(newer, way)
        again = store.put(2, {"model.ckpt": file(tmp_path, b"again")})
        assert store.newest_valid() == again
        assert contents(store, again, tmp_path) == {"model.ckpt": b"again"}

    @pytest.mark.filterwarnings("ignore::UserWarning")
    def test_nothing_is_pruned_before_a_newer_one_is_valid(
        self, store: Store, tmp_path: Path
    ) -> None:
        older, newer = self._two(store, tmp_path)
        self._damage(newer, "altered")
        assert store.prune(Retention(newest=1)) == []
        assert store.newest_valid() == older
        newest = store.put(3, {"m": file(tmp_path, b"good")})
        store.prune(Retention(newest=1))
        assert store.list() == [newest]

    @pytest.mark.filterwarnings("ignore::UserWarning")
    def test_if_all_are_broken_there_is_none(self, store: Store, tmp_path: Path) -> None:
        for checkpoint in self._two(store, tmp_path):
            self._damage(checkpoint, "torn")
        assert store.newest_valid() is None
        assert store.fetch_newest_valid("model.ckpt", tmp_path) is None

    @pytest.mark.filterwarnings("ignore::UserWarning")
    @pytest.mark.parametrize(
        "sidecar",
        [
            b"",
            b"{",
            b"[]",
            b"\xff\xfe",
            b'{"schema": 2}',
            b'{"schema": 2, "step": 2, "details": {}, "files": {"../up": {"bytes": 1, '
            b'"checksum": "sha256:00000000"}}}',
        ],
    )
    def test_a_sidecar_that_is_none_is_no_checkpoint(
        self, store: Store, tmp_path: Path, sidecar: bytes
    ) -> None:
        older, _ = self._two(store, tmp_path)
        self.damage_sidecar(2, sidecar)
        assert store.list() == [older]
        assert store.newest_valid() == older
        again = store.put(2, {"m": file(tmp_path, b"again")})
        assert store.newest_valid() == again

    def _two(self, store: Store, folder: Path) -> tuple[StoredCheckpoint, StoredCheckpoint]:
        files = {
            "model.ckpt": file(folder, os.urandom(SIZE), "model"),
            "small": file(folder, b"x", "small"),
        }
        return store.put(1, files), store.put(2, files)

    def _damage(self, checkpoint: StoredCheckpoint, way: str) -> None:
        content = {
            "altered": bytes(SIZE),
            "torn": bytes(SIZE // 2),
            "longer": bytes(SIZE + 1),
            "emptied": b"",
            "missing": None,
        }[way]
        self.damage(checkpoint, "model.ckpt", content)
