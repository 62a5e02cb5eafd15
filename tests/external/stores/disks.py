"""Real disks for tests: small ones that are full, and one that can no longer be read."""

import contextlib
import mmap
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

_FIBMAP = 1  # the ioctl that tells where on the disk a block of a file is


@contextlib.contextmanager
def mounted(where: Path, *arguments: str) -> Iterator[None]:
    """A file system mounted at `where`; skips where that is not allowed."""
    if os.geteuid() != 0:
        pytest.skip("only root may mount a file system")
    done = subprocess.run(["mount", *arguments, where], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"a file system cannot be mounted here: {done.stderr.strip()}")
    try:
        yield
    finally:
        _unmount(where)


def _unmount(where: Path) -> None:
    """Unmount it as soon as nobody looks at it any more: an indexer, or what was just killed."""
    until = time.monotonic() + 60
    command = ["umount", where]
    while subprocess.run(command, capture_output=True, check=time.monotonic() > until).returncode:
        time.sleep(0.1)


@contextlib.contextmanager
def small_disk(where: Path, size: str) -> Iterator[Path]:
    """An empty file system of `size`, e.g. `2m`, in the new folder `where`."""
    where.mkdir()
    with mounted(where, "-t", "tmpfs", "-o", f"size={size}", "none"):
        yield where


@contextlib.contextmanager
def cloning_disk(where: Path) -> Iterator[Path]:
    """An empty XFS, on which files can be cloned, in the new folder `where`."""
    where.mkdir()
    image = where.with_suffix(".image")
    image.touch()
    os.truncate(image, 400 << 20)  # of which a small part is ever written
    try:
        subprocess.run(["mkfs.xfs", "-q", image], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"a file system cannot be mounted here that has clones: {error}")
    with mounted(where, "-o", "loop", str(image)):
        yield where


def fill(disk: Path, *, leave: int = 0) -> Path:
    """Fill a file system up but for `leave` bytes; returns the file that is in the way."""
    filler = disk / "filler"
    with filler.open("ab", buffering=0) as file:
        for piece in (1 << 16, 4096):
            with contextlib.suppress(OSError):
                while True:
                    file.write(bytes(piece))
        file.truncate(max(0, file.tell() - leave))
    return filler


class FailingDisk:
    """A file system in `folder` whose files can be made unreadable, and readable again.

    It lies in a file of which the end is cut off: the kernel reports an input/output error. Where
    on it a file lies is the kernel's business; those that are not to fail are kept in memory.
    """

    SIZE = 64 << 20

    def __init__(self, folder: Path, image: Path, device: str) -> None:
        self.folder, self._image, self._device = folder, image, device
        self._failed: set[Path] = set()
        self._kept = contextlib.ExitStack()

    def fail(self, *paths: Path) -> None:
        """Make the content of these files unreadable too, and no other's that is there now."""
        os.sync()
        self._failed.update(paths)
        files = {path for path in self.folder.rglob("*") if path.is_file() and path.stat().st_size}
        with contextlib.ExitStack() as kept:
            for path in files - self._failed:
                kept.enter_context(_in_memory(path))
            self._kept.close()
            self._kept = kept.pop_all()
        self._resize(min(map(self._place, self._failed)))
        for path in self._failed:
            with path.open("rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)

    def heal(self) -> None:
        """Let everything be read again; what was there is gone, and zeros instead."""
        self._resize(self.SIZE)
        self._failed.clear()
        self._kept.close()

    def _place(self, path: Path) -> int:
        import fcntl

        with path.open("rb") as file:
            block = fcntl.ioctl(file, _FIBMAP, (0).to_bytes(4, "little"))
        return int.from_bytes(block, "little") * os.statvfs(path).f_bsize

    def _resize(self, size: int) -> None:
        os.truncate(self._image, size)
        subprocess.run(["losetup", "-c", self._device], check=True)


@contextlib.contextmanager
def failing_disk(where: Path) -> Iterator[FailingDisk]:
    """A `FailingDisk` in the new folder `where`; skips where there can be none."""
    where.mkdir()
    image = where.with_suffix(".image")
    image.touch()
    os.truncate(image, FailingDisk.SIZE)
    try:
        # All metadata at the beginning, no journal: only files are cut off.
        options = ["-O", "^has_journal", "-E", "packed_meta_blocks=1,lazy_itable_init=0"]
        subprocess.run(["mkfs.ext4", "-q", "-F", *options, image], check=True)
        losetup = ["losetup", "-f", "--show", image]
        made = subprocess.run(losetup, check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"a file system cannot be mounted here: {error}")
    device = made.stdout.strip()
    try:
        with mounted(where, device):
            disk = FailingDisk(where, image, device)
            try:
                yield disk
            finally:
                disk.heal()
    finally:
        subprocess.run(["losetup", "-d", device], check=True)


@contextlib.contextmanager
def _in_memory(path: Path) -> Iterator[None]:
    """Let the content of a file be in the page cache for as long as the context lasts."""
    with (
        path.open("rb") as file,
        mmap.mmap(file.fileno(), 0, mmap.MAP_SHARED, mmap.PROT_READ) as pages,
    ):
        for at in range(0, len(pages), mmap.PAGESIZE):
            _ = pages[at]
        yield
