import contextlib
import errno
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from curitorch.external.schema import UnreadableFile
from curitorch.external.stores import LocalStore
from curitorch.external.stores.store import CheckpointExists, LeaseLost, StoredFile
from curitorch.external.stores.testing import StoreContract
from curitorch.external.stores.testing.writing import start_writer
from tests.external.stores.disks import failing_disk, mounted
from tests.external.stores.older_records import OlderRecords

LOCKS = {"changes", "lease", "lease.json"}


def leftovers(root):
    """What of a store's root belongs to no checkpoint, at any depth."""
    belongs = set(LOCKS)
    for sidecar in root.glob("step-*.json"):
        names = json.loads(sidecar.read_bytes())["files"]
        belongs |= {sidecar.name, sidecar.stem, *(f"{sidecar.stem}/{name}" for name in names)}
    return sorted({path.relative_to(root).as_posix() for path in root.rglob("*")} - belongs)


class TestLocalStore(StoreContract, OlderRecords):
    @pytest.fixture
    def recipe(self, tmp_path):
        self.root = tmp_path / 'a "root", with $HOME'
        return "local", 'root="' + str(self.root).replace('"', '\\"') + '"'

    def damage(self, checkpoint, name, content):
        path = self.root / f"step-{checkpoint.step:08d}" / name
        path.unlink()
        if content is not None:
            path.write_bytes(content)

    def damage_sidecar(self, step, content):
        (self.root / f"step-{step:08d}.json").write_bytes(content)

    def leftovers(self):
        return leftovers(self.root)


@pytest.fixture
def root(tmp_path):
    return tmp_path / "root"


@pytest.fixture
def store(root):
    with LocalStore(root) as store:
        yield store


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "source"
    path.write_bytes(b"weights")
    return path


def test_files_are_plain_files_where_the_docstring_says(store, root, source):
    store.put(120, {"model.ckpt": source}, details={"epoch": 4})
    assert (root / "step-00000120" / "model.ckpt").read_bytes() == b"weights"
    record = json.loads((root / "step-00000120.json").read_text())
    assert (record["schema"], record["step"], record["details"]) == (2, 120, {"epoch": 4})


def test_a_relative_root_stays_where_it_is_when_the_process_goes_elsewhere(
    tmp_path, monkeypatch, source
):
    monkeypatch.chdir(tmp_path)
    store = LocalStore("here")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    store.put(1, {"m": source})
    assert (tmp_path / "here" / "step-00000001" / "m").is_file()


def test_a_root_that_is_a_file_is_one_sentence(source):
    with pytest.raises(NotADirectoryError, match="is not a directory, which a local store needs"):
        LocalStore(source)


def test_others_may_read_what_the_umask_lets_them(store, root, source):
    store.put(1, {"m": source})
    mask = os.umask(0)
    os.umask(mask)
    for name in ("step-00000001.json", "step-00000001/m"):
        assert (root / name).stat().st_mode & 0o777 == 0o666 & ~mask


def test_a_moved_file_is_the_same_file_and_gone_from_where_it_was(store, root, source):
    number = source.stat().st_ino
    put = store.put(1, {"m": source}, move=True)
    assert not source.exists()
    assert (root / "step-00000001" / "m").stat().st_ino == number
    store.verify(put)


def test_a_file_is_moved_from_another_file_system_too(store, tmp_path, source):
    (tmp_path / "other").mkdir()
    with mounted(tmp_path / "other", "-t", "tmpfs", "none"):
        elsewhere = tmp_path / "other" / "m"
        elsewhere.write_bytes(b"weights")
        store.verify(store.put(1, {"m": elsewhere}, move=True))
        assert not elsewhere.exists()


def test_a_file_that_was_not_stored_was_not_moved(store, root, source):
    store.put(1, {"m": source})
    source.write_bytes(b"other")
    with pytest.raises(CheckpointExists):
        store.put(1, {"m": source}, move=True)
    with pytest.raises(FileNotFoundError):
        store.put(2, {"m": source, "n": Path("nowhere")}, move=True)
    assert source.read_bytes() == b"other"
    assert leftovers(root) == []


def test_what_a_link_leads_to_is_copied_and_the_link_is_moved(store, tmp_path, source):
    link = tmp_path / "link"
    link.symlink_to(source)
    put = store.put(1, {"m": link}, move=True)
    assert source.read_bytes() == b"weights"
    assert not os.path.lexists(link)
    store.verify(put)


def test_what_the_writer_knows_is_recorded_and_compared(store, source, tmp_path):
    known = store.put(1, {"m": source}).files["m"]
    assert store.put(2, {"m": source}, known={"m": known}, move=True).files["m"] == known
    other = tmp_path / "other"
    other.write_bytes(b"wEights")
    with pytest.raises(UnreadableFile, match="not what its writer recorded"):
        store.put(3, {"m": other}, known={"m": known})
    with pytest.raises(UnreadableFile, match="not what its writer recorded"):
        store.put(3, {"m": other}, known={"m": StoredFile(3, known.checksum)}, move=True)
    assert other.is_file()
    assert [checkpoint.step for checkpoint in store.list()] == [1, 2]


def test_the_same_model_as_another_checkpoint_takes_no_room(store, root, source, tmp_path):
    first = store.put(1, {"m": source})
    second = store.put(2, {"m": store.fetch(first, "m", tmp_path)})
    assert (root / "step-00000001" / "m").samefile(root / "step-00000002" / "m")
    third = store.put(3, {"m": store.fetch(second, "m", tmp_path)}, move=True)
    store.verify(second)  # what is in the store is not moved out of another checkpoint
    store.delete(1)
    store.verify(second)
    store.verify(third)


@pytest.mark.filterwarnings("ignore:Left out")
@pytest.mark.parametrize("kind", ["folder", "file", "sidecar"])
def test_links_out_of_the_root_are_not_followed(store, root, source, tmp_path, kind):
    put = store.put(1, {"m": source})
    inside = {
        "folder": root / "step-00000001",
        "file": root / "step-00000001" / "m",
        "sidecar": root / "step-00000001.json",
    }[kind]
    outside = tmp_path / "outside"
    inside.rename(outside)
    inside.symlink_to(outside)
    assert store.list() == []
    assert store.newest_valid() is None
    if kind != "sidecar":
        with pytest.raises(UnreadableFile, match="behind a link"):
            store.fetch(put, "m", tmp_path)
    store.put(1, {"m": source}, details={"again": True})
    store.delete(1)
    assert outside.exists()
    assert outside.is_file() or list(outside.iterdir()) == [outside / "m"]
    assert leftovers(root) == []


@pytest.mark.parametrize("schema", [1, 3])
def test_a_checkpoint_of_another_curitorch_is_neither_read_nor_touched(store, root, source, schema):
    text = json.dumps({"schema": schema, "step": 1})
    (root / "step-00000001.json").write_text(text)
    with pytest.warns(UserWarning, match=f"schema {schema}"):
        assert store.list() == []
    with pytest.raises(CheckpointExists, match=f"schema {schema}.* not touched"):
        store.put(1, {"m": source})
    assert (root / "step-00000001.json").read_text() == text


def test_files_of_others_in_the_root_are_let_be(store, root, source):
    (root / "notes.txt").write_text("mine")
    (root / "step-7").mkdir()
    (root / "step-00000009.ckpt").write_text("mine")
    store.put(1, {"m": source})
    with LocalStore(root) as another, another.lease("a"):
        assert [checkpoint.step for checkpoint in another.list()] == [1]
    assert leftovers(root) == ["notes.txt", "step-00000009.ckpt", "step-7"]


def test_what_dead_writers_left_is_swept_when_the_store_is_opened_or_leased(store, root):
    def leave():
        for name in (".draft-0", "step-00000003", ".draft-1"):
            (root / name).mkdir()
            (root / name / "m").write_text("half")
        (root / ".draft-2.json").write_text("{")
        (root / ".draft-1" / ".writer").touch()  # a lock that nobody holds
        (root / ".draft-3").symlink_to(root.parent)

    leave()
    with store.lease("a"):
        assert leftovers(root) == []
    leave()
    LocalStore(root)
    assert leftovers(root) == []
    assert root.parent.is_dir()


def test_what_a_living_writer_is_writing_is_not_swept(store, root, tmp_path):
    os.mkfifo(tmp_path / "slow")
    code = (
        "import sys\nfrom pathlib import Path\nfrom curitorch.external.stores import LocalStore\n"
        "LocalStore(sys.argv[1]).put(1, {'m': Path(sys.argv[2])})"
    )
    with subprocess.Popen([sys.executable, "-c", code, root, tmp_path / "slow"]) as writer:
        with (tmp_path / "slow").open("wb", buffering=0) as pipe:  # it has begun to read
            pipe.write(b"wei")
            while not list(root.glob(".draft-*/m")):
                assert writer.poll() is None
                time.sleep(0.01)
            with LocalStore(root) as another, another.lease("b"):
                assert len(list(root.glob(".draft-*/m"))) == 1
            pipe.write(b"ghts")
        assert writer.wait() == 0
    [put] = store.list()
    store.verify(put)
    assert leftovers(root) == []


def test_what_has_a_name_is_durable_before_it_gets_it(store, root, source, monkeypatch):
    """What a power loss would show: nothing is renamed before it is on the disk."""
    done = []
    fsync, rename, link = os.fsync, os.rename, os.link

    def note_fsync(descriptor):
        fsync(descriptor)
        name = Path(f"/proc/self/fd/{descriptor}").readlink().relative_to(root.parent).as_posix()
        done.append("fsync " + re.sub(r"draft-[0-9a-f]+", "draft", name))

    def note_name(call, word):
        def noting(old, new, **options):
            call(old, new, **options)
            done.append(f"{word} {Path(new).name}")

        return noting

    monkeypatch.setattr(os, "fsync", note_fsync)
    monkeypatch.setattr(os, "rename", note_name(rename, "name"))
    monkeypatch.setattr(os, "link", note_name(link, "name"))
    store.put(7, {"m": source})
    assert done == [
        "fsync root/.draft/m",
        "fsync root/.draft.json",
        "fsync root/.draft",
        "name step-00000007",
        "fsync root",
        "name step-00000007.json",
        "fsync root",
    ]
    done.clear()
    store.put(8, {"m": source}, move=True)
    assert done[:2] == ["name m", "fsync root/.draft/m"]


def test_a_file_system_without_hard_links_will_do(store, root, source, monkeypatch, tmp_path):
    def no_links(old, new, **options):
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_links)
    put = store.put(1, {"m": source}, move=True)
    assert not source.exists()
    store.put(2, {"m": store.fetch(put, "m", tmp_path)})
    assert not (root / "step-00000001" / "m").samefile(root / "step-00000002" / "m")
    for checkpoint in store.list():
        store.verify(checkpoint)
    assert leftovers(root) == []


@pytest.mark.parametrize("torn", ["", "{", "[]", '{"schema": 1}', '{"schema": 99}'])
def test_a_torn_record_of_the_lease_is_one_sentence(store, root, source, torn):
    with store.lease("a") as lease:
        store.put(1, {"m": source}, lease=lease)
        (root / "lease.json").write_text(torn)
        with pytest.raises(UnreadableFile, match=r"lease\.json"):
            store.put(2, {"m": source}, lease=lease)
    with pytest.raises(UnreadableFile, match=r"lease\.json"), store.lease("b"):
        pass
    (root / "lease.json").unlink()
    with store.lease("b"):
        pass


def test_a_root_that_was_emptied_is_leased_to_nobody(store, root, source):
    with store.lease("a") as lease:
        (root / "lease.json").unlink()
        with pytest.raises(LeaseLost, match="no longer leased to 'a'"):
            store.put(1, {"m": source}, lease=lease)


@pytest.mark.filterwarnings("error::UserWarning")  # not of what the collector finds
def test_what_was_pruned_while_it_was_verified_is_no_reason_for_a_warning(root, source):
    class Overtaken(LocalStore):
        def verify(self, checkpoint):
            if checkpoint.step == 1:
                self.put(2, {"m": source})
                self.delete(1)
            super().verify(checkpoint)

    store = Overtaken(root)
    store.put(1, {"m": source})
    assert store.newest_valid().step == 2


def test_a_full_disk_is_said_and_leaves_what_was_there(tmp_path, source):
    root = tmp_path / "small disk"
    root.mkdir()
    with mounted(root, "-t", "tmpfs", "-o", "size=2m", "none"):
        store = LocalStore(root)
        first = store.put(1, {"m": source})
        source.write_bytes(bytes(3 << 20))
        with pytest.raises(OSError, match=r"checkpoint of step 2 was not stored.*small disk") as e:
            store.put(2, {"m": source})
        assert e.value.errno == errno.ENOSPC
        assert leftovers(root) == []
        assert store.newest_valid() == first
        source.write_bytes(bytes(1 << 20))
        store.put(2, {"m": source})


def test_a_disk_that_fills_up_at_any_point_leaves_no_trace(tmp_path, source):
    root = tmp_path / "small disk"
    root.mkdir()
    with mounted(root, "-t", "tmpfs", "-o", "size=1m,nr_inodes=12", "none"):
        store = LocalStore(root)
        first = store.put(1, {"m": source})
        others = 0
        with contextlib.suppress(OSError):
            while True:  # no more names can be made
                (root / f"other {others}").touch()
                others += 1
        for left in range(others + 1):
            with contextlib.suppress(OSError):
                store.put(2 + left, {"m": source})
            assert [name for name in leftovers(root) if "other" not in name] == []
            assert store.list()[0] == first
            for checkpoint in store.list():
                store.verify(checkpoint)
            if left < others:
                (root / f"other {left}").unlink()
        assert len(store.list()) > 1


def test_a_store_on_a_read_only_disk_can_be_read(tmp_path, source):
    root = tmp_path / "disk"
    root.mkdir()
    with mounted(root, "-t", "tmpfs", "none"):
        put = LocalStore(root).put(1, {"m": source})
        (root / ".draft-0").mkdir()
        subprocess.run(["mount", "-o", "remount,ro", root], check=True)
        store = LocalStore(root)
        assert store.newest_valid() == put
        assert store.fetch(put, "m", tmp_path).read_bytes() == b"weights"
        with pytest.raises(OSError, match="Read-only"):
            store.put(2, {"m": source})


def test_a_source_with_a_read_error_is_not_stored(store, root):
    with pytest.raises(OSError, match="error") as caught:  # the first page is never there
        store.put(1, {"m": Path("/proc/self/mem")})
    assert caught.value.errno == errno.EIO
    assert leftovers(root) == []


def test_a_stored_file_with_a_read_error_is_passed_over(store, root, tmp_path, source):
    older = store.put(1, {"m": source})
    source.write_bytes(b"")
    store.put(2, {"m": source})
    broken = root / "step-00000002" / "m"
    memory = f"/proc/{os.getpid()}/mem"
    with mounted(broken, "--bind", memory):
        with pytest.raises(OSError, match="error"):
            broken.read_bytes()
        with pytest.warns(UserWarning, match="cannot be read .Input/output error."):
            assert store.newest_valid() == older


def test_a_disk_that_cannot_be_read_costs_what_lies_there(tmp_path, source):
    source.write_bytes(os.urandom(100_000))
    with failing_disk(tmp_path / "disk") as disk, LocalStore(disk.folder / "root") as store:
        older, newer = store.put(1, {"m": source}), store.put(2, {"m": source})
        disk.fail(disk.folder / "root" / "step-00000002" / "m")
        with pytest.warns(UserWarning, match="cannot be read .Input/output error."):
            assert store.newest_valid() == older
        with pytest.warns(UserWarning, match="cannot be read .Input/output error."):
            assert store.fetch_newest_valid("m", tmp_path)[0] == older
        assert store.list() == [older, newer]
        disk.fail(disk.folder / "root" / "step-00000001" / "m")
        with pytest.raises(OSError, match="Input/output error"):
            LocalStore(tmp_path / "root").put(1, {"m": disk.folder / "root/step-00000001/m"})
        assert leftovers(tmp_path / "root") == []


def test_a_sidecar_with_a_read_error_is_left_out(store, root, source):
    older = store.put(1, {"m": source})
    store.put(2, {"m": source})
    with (
        mounted(root / "step-00000002.json", "--bind", f"/proc/{os.getpid()}/mem"),
        pytest.warns(UserWarning, match="cannot be read .Input/output error."),
    ):
        assert store.newest_valid() == older


@pytest.mark.filterwarnings("error::UserWarning")  # not of what the collector finds
def test_a_list_is_of_one_moment_though_others_write(store, monkeypatch, source, root):
    """A reader that is about to open a sidecar finds it gone, and another there."""
    store.put(1, {"m": source})
    read = Path.read_bytes

    def overtaken(path):
        if path.name == "step-00000001.json":
            monkeypatch.undo()
            LocalStore(root).put(2, {"m": source})
            LocalStore(root).delete(1)
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", overtaken)
    assert [checkpoint.step for checkpoint in store.list()] == [2]


def test_two_processes_never_hold_the_lease_at_once(store, root, tmp_path):
    line = f"root={root}"
    with (
        start_writer("local", line, tmp_path, first_step=1) as one,
        start_writer("local", line, tmp_path, first_step=1000) as two,
    ):
        first = json.loads(wait_for(root / "lease.json"))
        time.sleep(0.3)
        assert json.loads((root / "lease.json").read_text()) == first
        holder, waiting = (one, two) if first["pid"] == one.pid else (two, one)
        holder.kill()
        assert waiting.stdout.readline().startswith("putting")
        assert json.loads((root / "lease.json").read_text())["token"] == first["token"] + 1


def wait_for(path):
    while not path.exists():
        time.sleep(0.01)
    return path.read_text()
