"""Clones of files: they share their blocks on the disk until one of them is written to."""

import os
from pathlib import Path
from stat import S_ISREG

_FICLONE = 0x40049409  # ioctl_ficlone(2), of Linux: XFS, Btrfs, bcachefs, OCFS2, some NFS


def clone(source: Path, target: Path) -> bool:
    """Make the new file `target` a durable clone of `source`; returns whether that is possible.

    Where it is not, because the file system cannot or `source` lies on another one or is no
    regular file (a pipe is not even opened, since it gives its bytes once), there is no `target`.

    Raises:
        FileExistsError: `target` exists.
        OSError: `source` cannot be opened, or the disk fails.
    """
    try:
        import fcntl
    except ModuleNotFoundError:  # not a Unix
        return False
    if not S_ISREG(source.stat().st_mode):
        return False
    with source.open("rb") as given:
        descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        try:
            fcntl.ioctl(descriptor, _FICLONE, given.fileno())
        except OSError:  # a copy finds out whether anything is wrong
            target.unlink()
            return False
        else:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    return True
