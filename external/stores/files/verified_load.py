"""`torch.load` of a file whose checksum is known: each byte is read once, and compared first."""

import contextlib
import mmap as mapping
import os
from pathlib import Path
from typing import Any

import torch

from ...checksum import Checksum, kind_of, matches
from ...schema import UnreadableFile
from ..store import StoredFile
from .torch_archive import TorchArchive
from .zip_layout import FileSource, Source

_BY_ENVIRONMENT = ("TORCH_FORCE_WEIGHTS_ONLY_LOAD", "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD")


def load_verified(
    path: Path,
    recorded: StoredFile | None,
    *,
    map_location: Any = None,
    weights_only: bool | None = None,
    mmap: bool = False,
) -> Any:
    """Return what `torch.load` would, if every byte of `path` is as recorded.

    Nothing is unpickled before all is compared.

    Args:
        path: A torch file; another one is compared as well, and left to `torch.load`.
        recorded: Its size and checksum; None to compare nothing.
        map_location: As `torch.load` takes it.
        weights_only: As `torch.load` takes it: None is True, unless the environment says otherwise.
        mmap: Leave the tensors in the file: its pages are read when they are used, and copied
            when they are changed; so nobody may change the file meanwhile.

    Raises:
        FileNotFoundError: There is no such file.
        UnreadableFile: It is torn or altered.
        pickle.UnpicklingError: It holds something that `weights_only` does not allow.
    """
    options: dict[str, Any] = {"map_location": map_location, "weights_only": weights_only}
    with FileSource(path) as source:
        check_size(path, source.size, recorded)
        if mmap:
            _compare_mapped(path, source, recorded)
            return torch.load(path, mmap=True, **options)
        archive = _read_archive(path, source, recorded)
    if archive is not None:
        with contextlib.suppress(Exception):  # torch says it again, in its own words
            return archive.unpickle(map_location, weights_only=weights_only is not False)
    return torch.load(path, **options)


def check_size(path: Path, found: int, recorded: StoredFile | None) -> None:
    """Compare the sizes.

    Raises:
        UnreadableFile: They differ.
    """
    if recorded is not None and found != recorded.bytes:
        raise UnreadableFile(
            f"'{path}' has {found} bytes, recorded are {recorded.bytes}: torn or altered."
        )


def _read_archive(path: Path, source: Source, recorded: StoredFile | None) -> TorchArchive | None:
    """Read all of `source`; None if it is not for us to unpickle, but as recorded."""
    digest = Checksum(kind_of(recorded.checksum, where=f"'{path}'")) if recorded else None
    archive: TorchArchive | None = None
    try:
        archive = TorchArchive(source, digest)
    except UnreadableFile:
        raise
    except ValueError:  # another format, or torn
        if recorded is not None and not matches(path, recorded.checksum):
            raise _altered(path) from None
        return None
    if recorded is not None and digest is not None and digest.text != recorded.checksum:
        raise _altered(path)
    by_environment = any(name in os.environ for name in _BY_ENVIRONMENT)
    return None if archive.is_script or by_environment else archive


def _compare_mapped(path: Path, source: FileSource, recorded: StoredFile | None) -> None:
    """Compare the checksum of the pages that a mapping of the file has."""
    if recorded is None:
        return
    digest = Checksum(kind_of(recorded.checksum, where=f"'{path}'"))
    if source.size:
        flags, allowed = mapping.MAP_PRIVATE, mapping.PROT_READ
        with mapping.mmap(source.descriptor, source.size, flags, allowed) as pages:
            pages.madvise(mapping.MADV_SEQUENTIAL)  # read far ahead if they are on the disk
            with memoryview(pages) as view:
                digest.update(view)
    if digest.text != recorded.checksum:
        raise _altered(path)


def _altered(path: Path) -> UnreadableFile:
    return UnreadableFile(f"'{path}' does not have its recorded checksum: it was altered.")
