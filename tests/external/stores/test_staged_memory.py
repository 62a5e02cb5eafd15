import errno
import os
from pathlib import Path

import pytest

from curitorch.external.checksum import checksum
from curitorch.external.stores.files import file_copy
from curitorch.external.stores.files.direct_file import DirectFile
from curitorch.external.stores.files.file_copy import copy_file
from curitorch.external.stores.saving.staged_memory import staged
from curitorch.external.stores.saving.staging import StagingBuffer
from curitorch.external.stores.store import StoredFile


@pytest.fixture
def buffer():
    buffer = StagingBuffer()
    yield buffer
    buffer.close()


def fill(buffer, size, seed):
    memory = buffer.reserve(size)
    content = (os.urandom(1 << 16) * (size // (1 << 16) + 1))[: size - 1] + bytes([seed])
    memory[:size] = content
    return content


def test_what_is_staged_is_seen_through_one_mapping_as_it_shrinks_and_grows(buffer):
    for seed, size in enumerate([9_000_000, 100, 9_000_000, 9_000_001, 20_000_000, 5000]):
        content = fill(buffer, size, seed)
        with staged(buffer.descriptor) as memory:
            assert memory == content


def test_another_buffer_is_not_taken_for_the_one_before(buffer):
    fill(buffer, 1000, 1)
    other = StagingBuffer()
    for each, seed in ((buffer, 2), (other, 3), (buffer, 4)):
        content = fill(each, 1000, seed)
        assert staged(each.descriptor) == content
    other.close()


def test_only_staging_memory_is_taken_to_stay_as_it_is(tmp_path):
    foreign = os.memfd_create("curitorch-staging-not")
    os.write(foreign, b"x" * 100)
    path = tmp_path / "file"
    path.write_bytes(b"x" * 100)
    with path.open("rb") as file:
        assert staged(file.fileno()) is None
    assert staged(foreign) is None
    os.close(foreign)
    empty = StagingBuffer()
    assert staged(empty.descriptor) is None
    empty.close()


@pytest.mark.parametrize("size", [file_copy.LARGE, file_copy.LARGE + 1, 3 * file_copy.LARGE - 4095])
def test_it_is_copied_whole_from_where_it_is(tmp_path, buffer, size):
    content = fill(buffer, size, 1)
    copied = copy_file(Path(f"/proc/self/fd/{buffer.descriptor}"), tmp_path / "x")
    assert (tmp_path / "x").read_bytes() == content
    assert copied == StoredFile(size, checksum(tmp_path / "x"))


def test_memory_behind_other_bytes_is_copied_where_it_does_not_fit_the_disks_blocks(tmp_path):
    pages = memoryview(bytes(range(256)) * 40_000)
    for before in (0, 5, 4096, 2 << 20):
        path = tmp_path / f"{before}"
        with DirectFile(path, size=0) as file:
            file.write(b"b" * before)
            file.write_pages(pages)
            file.write(b"after")
        assert path.read_bytes() == b"b" * before + pages + b"after"
        assert file.stored() == StoredFile(path.stat().st_size, checksum(path))


def test_a_failed_write_is_raised_and_nothing_hangs(tmp_path, buffer, monkeypatch):
    fill(buffer, 3 * file_copy.LARGE, 1)
    write = DirectFile._write

    def full(self, data, offset):
        if offset:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(self, data, offset)

    monkeypatch.setattr(DirectFile, "_write", full)
    with pytest.raises(OSError, match="No space left"):
        copy_file(Path(f"/proc/self/fd/{buffer.descriptor}"), tmp_path / "x")
