"""What a store of ours does with records whose checksums are of another kind."""

import json

import pytest

from curitorch.external.schema import UnreadableFile
from curitorch.external.stores.known import check_known
from curitorch.external.stores.store import CheckpointExists, StoredFile, StoreError
from curitorch.external.stores.testing.store_case import StoreCase, contents, file, new_folder

SHA256 = "sha256:9a129038d9a00aed0cf6a7ea059ca50a813449061ab87848cf1a13eafdf33b2c"  # b"weights"
XXH3 = "xxh3:bdbda1eb6e05adc4800d98e5524fefbc"
OLD_SIDECAR = """{"details": {"epoch": 4, "loss": NaN}, "files": {"model.ckpt": {"bytes": 7,
"checksum": "sha256:9a129038d9a00aed0cf6a7ea059ca50a813449061ab87848cf1a13eafdf33b2c"}},
"schema": 2, "step": 1}"""
DETAILS = {"epoch": 4, "loss": float("nan")}


class OlderRecords(StoreCase):
    def old(self, store, folder, checksum=SHA256):
        """A checkpoint whose sidecar an older curitorch wrote, or a newer one."""
        put = store.put(1, {"model.ckpt": file(folder, b"weights")}, details=DETAILS)
        assert put.files["model.ckpt"].checksum == XXH3
        record = json.loads(OLD_SIDECAR.replace(SHA256, checksum))
        if put.upload:
            record["upload"] = put.upload
        self.damage_sidecar(1, json.dumps(record).encode())
        return put

    def test_an_old_sidecar_opens_and_is_verified(self, store, tmp_path):
        self.old(store, tmp_path)
        [old] = store.list()
        assert old.files == {"model.ckpt": StoredFile(7, SHA256)}
        store.verify(old)
        assert contents(store, old, new_folder(tmp_path)) == {"model.ckpt": b"weights"}
        found, path = store.fetch_newest_valid("model.ckpt", new_folder(tmp_path))
        assert (found.files, path.read_bytes()) == (old.files, b"weights")

    @pytest.mark.filterwarnings("ignore::UserWarning")
    def test_what_was_altered_is_found_by_an_old_sidecar(self, store, tmp_path):
        put = self.old(store, tmp_path)
        [old] = store.list()
        for content in (b"weightz", b"weight", b"weights "):
            self.damage(put, "model.ckpt", content)
            with pytest.raises(UnreadableFile, match=r"model\.ckpt"):
                store.verify(old)
            with pytest.raises(UnreadableFile, match=r"model\.ckpt"):
                store.fetch(old, "model.ckpt", new_folder(tmp_path))
            assert store.newest_valid() is None

    def test_the_same_as_an_old_one_is_the_same_and_another_is_refused(self, store, tmp_path):
        self.old(store, tmp_path)
        again = store.put(1, {"model.ckpt": file(tmp_path, b"weights")}, details=DETAILS)
        assert again.files == {"model.ckpt": StoredFile(7, SHA256)}
        store.verify(again)
        for files, details in (
            ({"model.ckpt": file(tmp_path, b"weightz", "z")}, DETAILS),
            ({"model.ckpt": file(tmp_path, b"weights")}, {"epoch": 5}),
            ({"other": file(tmp_path, b"weights")}, DETAILS),
        ):
            with pytest.raises(CheckpointExists):
                store.put(1, files, details=details)
        assert store.newest_valid().files == again.files

    def test_what_an_older_writer_knows_is_recorded_and_compared(self, store, tmp_path):
        right, wrong = StoredFile(7, SHA256), StoredFile(7, "sha256:" + "0" * 64)
        source = file(tmp_path, b"weights")
        put = store.put(1, {"m": source}, known={"m": right})
        assert put.files == {"m": right}
        store.verify(put)
        with pytest.raises(UnreadableFile, match="recorded"):
            store.put(2, {"m": source}, known={"m": wrong})
        assert [each.step for each in store.list()] == [1]

    def test_a_checksum_of_a_newer_curitorch_is_neither_read_nor_touched(self, store, tmp_path):
        put = self.old(store, tmp_path, checksum="blake9:" + "0" * 32)
        with pytest.warns(UserWarning, match=r"kind 'blake9', this curitorch knows xxh3, sha256"):
            assert store.list() == []
        [(step, why)] = store.unknown().items()
        assert step == 1
        assert "kind 'blake9'" in why
        with pytest.raises(StoreError, match=r"step 1, is for another curitorch: .*'blake9'"):
            check_known(store, None)
        check_known(store, 1)
        with pytest.raises(CheckpointExists):
            store.put(1, {"model.ckpt": file(tmp_path, b"weights")}, details=DETAILS)
        record = {"schema": 2, "step": 1, "details": {}, "files": {}}
        record["files"]["model.ckpt"] = {"bytes": 7, "checksum": SHA256}
        if put.upload:
            record["upload"] = put.upload
        self.damage_sidecar(1, json.dumps(record).encode())
        assert store.unknown() == {}
        assert contents(store, store.newest_valid(), new_folder(tmp_path)) == {
            "model.ckpt": b"weights"
        }
