import errno
import fcntl
import os
import subprocess
import sys
import threading
import time
from io import FileIO
from pathlib import Path

import pytest

from curitorch.external.checksum import checksum
from curitorch.external.schema import UnreadableFile
from curitorch.external.stores import LocalStore
from curitorch.external.stores.files.direct_file import PIECE, DirectFile
from curitorch.external.stores.files.file_copy import LARGE, copy_file
from curitorch.external.stores.files.page_cache import is_cached
from curitorch.external.stores.store import StoredFile
from tests.external.stores.disks import failing_disk, mounted, small_disk

MB = 1 << 20


@pytest.fixture
def source(tmp_path):
    return tmp_path / "a source, with ü"


@pytest.fixture
def target(tmp_path):
    return tmp_path / "a copy"


def cached(path, at):
    """Whether the page of a file is in the page cache."""
    with path.open("rb") as file:
        return is_cached(file.fileno(), at)


def forget(path):
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    if cached(path, 0):
        pytest.skip("this file system keeps everything in memory")


@pytest.mark.parametrize(
    "size",
    [
        *(0, 1, 4096, LARGE - 1, LARGE, LARGE + 1, LARGE + 4095, LARGE + 4096, LARGE + 4097),
        *(4 * PIECE - 1, 5 * PIECE, 5 * PIECE + 1, 9 * PIECE - 4096),
    ],
)
@pytest.mark.parametrize("kind", ["xxh3", "sha256"])
def test_a_copy_is_the_same_and_what_is_said_of_it_is_true(source, target, size, kind):
    source.write_bytes(os.urandom(size))
    copied = copy_file(source, target, kind=kind)
    assert target.read_bytes() == source.read_bytes()
    assert copied == StoredFile(size, checksum(source, kind=kind))


@pytest.mark.parametrize("size", [1000, 3 * LARGE + 1000])
def test_a_file_in_memory_is_copied_by_its_descriptor(target, size):
    content = os.urandom(size)
    with FileIO(os.memfd_create("staged"), "r+b") as staged:
        staged.write(content)
        copied = copy_file(Path(f"/proc/self/fd/{staged.fileno()}"), target)
        assert staged.tell() == size  # its position is its own
    assert target.read_bytes() == content
    assert copied == StoredFile(size, checksum(target))


@pytest.mark.parametrize("size", [10, LARGE])
def test_a_file_that_is_there_is_not_written_over(source, target, size):
    source.write_bytes(bytes(size))
    target.write_bytes(b"mine")
    with pytest.raises(FileExistsError):
        copy_file(source, target)
    assert target.read_bytes() == b"mine"


@pytest.mark.parametrize("size", [10, LARGE])
def test_others_may_read_a_copy_as_far_as_the_umask_lets_them(source, target, size):
    source.write_bytes(bytes(size))
    source.chmod(0o600)
    before = os.umask(0o027)
    try:
        copy_file(source, target)
    finally:
        os.umask(before)
    assert target.stat().st_mode & 0o777 == 0o640


def test_what_is_in_the_page_cache_is_known_without_bringing_it_there(source):
    size = 3 * MB + 5
    source.write_bytes(os.urandom(size))
    places = (0, MB + 1, 2 * MB, size - 1)
    assert [cached(source, at) for at in places] == [True] * 4
    forget(source)
    for _ in range(2):  # a read ahead would be over soon
        assert [cached(source, at) for at in places] == [False] * 4
        time.sleep(0.05)
    with source.open("rb", buffering=0) as file:
        file.seek(2 * MB)
        file.read(1)
    assert [cached(source, at) for at in places[:3]] == [False, False, True]
    with pytest.raises(ValueError, match="mmap"):
        cached(source, size + MB)


def test_a_large_copy_leaves_the_page_cache_alone(source, target):
    source.write_bytes(os.urandom(LARGE + 1000))
    forget(source)

    def others_keep_theirs():
        target.unlink(missing_ok=True)
        source.read_bytes()
        copy_file(source, target)
        return cached(source, 0) and cached(source, LARGE)

    # More than one try: the machine itself may have needed the memory just then.
    assert any(others_keep_theirs() for _ in range(10))
    for at in (0, LARGE // 2, LARGE):
        assert not cached(target, at)
    target.unlink()
    forget(source)
    copy_file(source, target)
    for at in (0, LARGE // 2, LARGE):
        assert not cached(source, at)


def test_what_is_being_written_is_not_in_the_page_cache_meanwhile(target):
    with DirectFile(target, size=100 * PIECE) as file:
        for _ in range(10):
            file.write(bytes(PIECE))
        if not fcntl.fcntl(file._descriptor, fcntl.F_GETFL) & os.O_DIRECT:
            try:
                os.close(os.open(target, os.O_DIRECT))
            except OSError:
                pytest.skip("this file system has no direct writes")
        for at in range(4):  # these are written, their memory was used again
            assert not cached(target, at * PIECE)


@pytest.mark.parametrize("kind", ["tmpfs", "ramfs"])
def test_where_there_are_no_direct_writes_the_copy_is_the_same(source, tmp_path, kind):
    source.write_bytes(os.urandom(LARGE + 1001))
    disk = tmp_path / "disk"
    disk.mkdir()
    with mounted(disk, "-t", kind, "none"):
        copied = copy_file(source, disk / "copy")
        assert (disk / "copy").read_bytes() == source.read_bytes()
        assert copied.checksum == checksum(source)
        with pytest.raises(FileExistsError):
            copy_file(source, disk / "copy")


def test_a_disk_that_wants_other_sizes_gets_them_through_the_cache(target):
    content = os.urandom(3 * PIECE)
    with DirectFile(target, size=len(content)) as file:
        file._free = [buffer[1:] for buffer in file._free]  # not aligned: the kernel refuses these
        file._now = file._now[1:]
        try:
            os.pwrite(file._descriptor, file._now[:4096], 0)
            pytest.skip("this file system takes anything")
        except OSError as error:
            assert error.errno == errno.EINVAL
        for at in range(0, len(content), PIECE - 1):
            piece = content[at : at + PIECE - 1]
            file._now[: len(piece)] = piece
            file._filled = len(piece)
            if len(piece) == PIECE - 1:
                file._send()
    assert target.read_bytes() == content
    assert file.stored() == StoredFile(len(content), checksum(target))


def test_bytes_that_lie_elsewhere_are_taken_in_any_pieces(target):
    content = os.urandom(3 * PIECE + 17)
    pieces = [content[:5], content[5 : PIECE + 9], b"", content[PIECE + 9 :]]
    with DirectFile(target, size=len(content)) as file:
        for piece in pieces:
            assert file.write(memoryview(piece)) == len(piece)
    assert target.read_bytes() == content
    assert file.stored() == StoredFile(len(content), checksum(target))


@pytest.mark.parametrize("size", [0, PIECE, 20 * PIECE])
def test_a_file_may_become_another_size_than_was_expected(target, size):
    content = os.urandom(2 * PIECE + 3)
    with DirectFile(target, size=size) as file:
        file.write(content)
    assert target.read_bytes() == content


def test_a_source_that_is_cut_off_meanwhile_is_copied_as_far_as_it_goes(source, target):
    source.write_bytes(os.urandom(20 * PIECE))

    class Cutting(DirectFile):
        def take(self, count):
            os.truncate(source, 6 * PIECE + 10)
            super().take(count)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("curitorch.external.stores.files.file_copy.DirectFile", Cutting)
        copied = copy_file(source, target)
    assert copied == StoredFile(6 * PIECE + 10, checksum(source))
    assert target.read_bytes() == source.read_bytes()


def test_a_read_error_in_the_source_is_an_exception(tmp_path, target):
    with failing_disk(tmp_path / "disk") as disk:
        source = disk.folder / "source"
        source.write_bytes(os.urandom(2 * LARGE))
        disk.fail(source)
        with pytest.raises(OSError, match="error") as caught:
            copy_file(source, target)
        assert caught.value.errno == errno.EIO


def test_a_disk_that_is_too_small_is_known_before_anything_is_written(tmp_path):
    with small_disk(tmp_path / "disk", "4m") as disk:
        with pytest.raises(OSError, match="No space") as caught:
            DirectFile(disk / "copy", size=2 * LARGE).__enter__()
        assert caught.value.errno == errno.ENOSPC
        assert (disk / "copy").stat().st_size == 0


def test_a_copy_is_durable(source, target, monkeypatch):
    synced, fsync = [], os.fsync
    monkeypatch.setattr(os, "fsync", lambda file: (fsync(file), synced.append(os.fstat(file)))[0])
    for size in (10, LARGE + 10):
        source.write_bytes(bytes(size))
        copy_file(source, target)
        about = target.stat()
        assert [(at.st_ino, at.st_size) for at in synced] == [(about.st_ino, size)]
        assert synced.pop().st_mtime_ns == about.st_mtime_ns  # nothing was written afterwards
        target.unlink()


def test_a_disk_that_fills_up_meanwhile_is_an_error_and_nothing_goes_on(tmp_path):
    with small_disk(tmp_path / "disk", "9m") as disk:
        with (
            pytest.raises(OSError, match="No space") as caught,
            DirectFile(disk / "copy", size=0) as file,
        ):
            while True:
                file.write(bytes(PIECE))
        assert caught.value.errno == errno.ENOSPC
    assert not [thread for thread in threading.enumerate() if "writing" in thread.name]


def test_the_last_write_may_fail_as_well(tmp_path):
    with (
        small_disk(tmp_path / "disk", "1m") as disk,
        pytest.raises(OSError, match="No space"),
        DirectFile(disk / "copy", size=0) as file,
    ):
        file.write(bytes(PIECE - 1))  # nothing is written yet


def test_what_is_given_up_leaves_no_thread_and_no_open_file(target):
    before = set(os.listdir("/proc/self/fd"))
    with (
        pytest.raises(RuntimeError, match="given up"),
        DirectFile(target, size=100 * PIECE) as file,
    ):
        for _ in range(10):
            file.write(bytes(PIECE))
        raise RuntimeError("given up")
    assert set(os.listdir("/proc/self/fd")) <= before
    assert not [thread for thread in threading.enumerate() if "writing" in thread.name]


def test_a_copy_takes_little_memory(source, target):
    source.touch()
    os.truncate(source, 200 * MB)
    # Not getrusage's: that one begins with the peak of the process that started this one.
    program = (
        "import re, sys\nfrom pathlib import Path\n"
        "from curitorch.external.checksum import Checksum\n"
        "from curitorch.external.stores.files.file_copy import copy_file\n"
        "status = Path('/proc/self/status')\n"
        "peak = lambda: int(re.search(r'VmHWM:\\s*(\\d+) kB', status.read_text())[1])\n"
        "Checksum()\nbefore = peak()\ncopy_file(Path(sys.argv[1]), Path(sys.argv[2]))\n"
        "print(peak() - before)\n"
    )
    command = [sys.executable, "-c", program, str(source), str(target)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert 0 < int(done.stdout) < 16 * 1024  # KiB
    assert target.stat().st_size == 200 * MB


@pytest.mark.parametrize("kind", ["xxh3", "sha256"])
def test_a_store_compares_a_large_copy_with_what_its_writer_knows(tmp_path, source, kind):
    source.write_bytes(os.urandom(LARGE + 5))
    known = StoredFile(LARGE + 5, checksum(source, kind=kind))
    with LocalStore(tmp_path / "root") as store:
        put = store.put(1, {"m": source}, known={"m": known})
        assert put.files == {"m": known}
        with source.open("r+b") as file:
            file.seek(LARGE - 1)
            last = file.read(1)
            file.seek(LARGE - 1)
            file.write(bytes([last[0] ^ 1]))
        with pytest.raises(UnreadableFile, match="not what its writer recorded"):
            store.put(2, {"m": source}, known={"m": known})
        assert store.list() == [put]
