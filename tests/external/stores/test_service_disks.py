"""The TCP store over disks that are full, or cannot be read, at either end."""

import errno
import os
import warnings

import pytest

from curitorch.external.checksum import checksum
from curitorch.external.stores.sidecar import to_json
from curitorch.external.stores.store import StoredCheckpoint, StoredFile
from curitorch.external.stores.testing.running_service import RunningService
from tests.external.stores.disks import failing_disk, fill, small_disk

MB = 1 << 20


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "a model"
    path.write_bytes(os.urandom(MB))
    return path


def job_files(service):
    """What of the job is no checkpoint, and no record that the service keeps for itself."""
    job = service.root / "job"
    names = {path.relative_to(job).as_posix() for path in job.rglob("*") if path.is_file()}
    return sorted(name for name in names - {"changes"} if not name.startswith("step-"))


def on_a_small_disk(disk, tmp_path):
    service = RunningService(tmp_path)
    service.root = disk / "root"
    return service


def test_a_disk_that_is_full_from_the_start_is_said_and_works_again_when_freed(tmp_path, source):
    with (
        small_disk(tmp_path / "disk", "4m") as disk,
        on_a_small_disk(disk, tmp_path) as service,
        service.store() as store,
    ):
        first = store.put(1, {"m": source})
        filler = fill(disk, leave=MB // 2)
        with pytest.raises(OSError, match=r"disk has \d+ bytes left.*Delete old ch") as raised:
            store.put(2, {"m": source})
        assert raised.value.errno == errno.ENOSPC
        assert (store.newest_valid(), job_files(service)) == (first, [])
        filler.unlink()
        store.put(2, {"m": source})
        assert [each.step for each in store.list()] == [1, 2]


def test_a_disk_that_fills_up_on_the_way_leaves_nothing_torn(tmp_path, source):
    """Whatever it is that finds no room: a file, a record, a folder or the sidecar."""
    said = []
    with (
        small_disk(tmp_path / "disk", "6m") as disk,
        on_a_small_disk(disk, tmp_path) as service,
        service.store() as store,
    ):
        kept = [store.put(1, {"m": source})]
        for number, leave in enumerate([0, 4096, 8192, 12288, MB // 2, MB, MB + 4096]):
            upload = f"{number:032x}"
            body = b'{"step": 2, "files": {"m": %d}}' % MB
            begun = service.ask("PUT", f"/jobs/job/uploads/{upload}", body)[0]
            assert begun == 201  # there was room when it was asked for
            filler = fill(disk, leave=leave)
            path = f"/jobs/job/uploads/{upload}/files/m"
            said.append(service.ask("PUT", path, source.read_bytes())[0])
            with pytest.raises(OSError, match=r"disk (is full|has \d+ bytes left)") as raised:
                store.put(3, {"m": source})
            assert raised.value.errno == errno.ENOSPC
            filler.unlink()
            assert store.list() == kept
            store.verify(kept[0])
            service.ask("DELETE", f"/jobs/job/uploads/{upload}")
            assert job_files(service) == []
        kept.append(store.put(3, {"m": source}))
        assert store.list() == kept
    assert set(said) == {200, 507}


def test_a_disk_that_is_full_at_the_commit_takes_the_commit_when_it_is_freed(tmp_path, source):
    content = source.read_bytes()
    with (
        small_disk(tmp_path / "disk", "4m") as disk,
        on_a_small_disk(disk, tmp_path) as service,
        service.store() as store,
    ):
        upload = f"/jobs/job/uploads/{'a' * 32}"
        service.ask("PUT", upload, b'{"step": 2, "files": {"m": %d}}' % MB)
        assert service.ask("PUT", f"{upload}/files/m", content)[0] == 200
        filler = fill(disk)
        files = {"m": StoredFile(MB, checksum(source))}
        sidecar = to_json(StoredCheckpoint(2, files))
        conditions = {"Upload_Id": "a" * 32, "If_None_Match": "*"}
        status, answer = service.ask("PUT", "/jobs/job/checkpoints/2", sidecar, **conditions)
        assert (status, b"disk is full" in answer) == (507, True)
        assert store.list() == []
        assert [path.name for path in (service.root / "job").glob("step-*")] == []
        filler.unlink()
        assert service.ask("PUT", "/jobs/job/checkpoints/2", sidecar, **conditions)[0] == 201
        [put] = store.list()
        store.verify(put)
        assert job_files(service) == []


def test_a_full_disk_of_the_client_leaves_no_copy(tmp_path, source):
    with RunningService(tmp_path) as service, service.store() as store:
        put = store.put(1, {"m": source})
        with small_disk(tmp_path / "disk", "512k") as disk:
            with pytest.raises(OSError, match="No space left"):
                store.fetch(put, "m", disk)
            assert list(disk.iterdir()) == []
            assert store.newest_valid() == put


def test_a_service_whose_disk_cannot_be_read_gives_the_next_older_one(tmp_path, source):
    with (
        failing_disk(tmp_path / "disk") as disk,
        on_a_small_disk(disk.folder, tmp_path) as service,
        service.store() as store,
    ):
        older = store.put(1, {"m": source})
        newer = store.put(2, {"m": source})
        disk.fail(service.root / "job" / "step-00000002" / "m")
        with pytest.warns(UserWarning, match=r"2/m' cannot be read .Input/output error."):
            assert store.newest_valid() == older
        with pytest.warns(UserWarning, match=r"2/m' cannot be read .Input/output error."):
            found = store.fetch_newest_valid("m", tmp_path / "here")
        assert found[0] == older
        assert found[1].read_bytes() == source.read_bytes()
        assert store.list() == [older, newer]
        disk.fail(service.root / "job" / "step-00000002.json")
        with pytest.warns(UserWarning, match=r"2\.json' cannot be read"):
            assert store.list() == [older]


@pytest.mark.parametrize("known", [False, True])
def test_a_source_that_cannot_be_read_is_named_and_nothing_is_stored(tmp_path, source, known):
    with RunningService(tmp_path) as service, service.store(tries=9) as store:
        put = store.put(1, {"m": source})
        with failing_disk(tmp_path / "disk") as disk:
            broken = disk.folder / "model"
            broken.write_bytes(source.read_bytes())
            disk.fail(broken)
            with pytest.raises(OSError, match=r"Input/output error.*disk/model") as raised:
                store.put(2, {"m": broken}, known=put.files if known else None)
            assert raised.value.errno == errno.EIO
        with warnings.catch_warnings(action="error"):
            assert store.list() == [put]
        assert job_files(service) == []
