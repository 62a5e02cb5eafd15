"""The sidecars of a store on S3, and whether the files that they name are there."""

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

from ...schema import UnreadableFile
from ..sidecar import folder_name, from_json, sidecar_name, step_of
from ..store import StoredCheckpoint, check_name
from .bucket import S3Bucket
from .errors import NoSuchObject
from .listed_object import S3Object

_READERS = 8  # sidecars read at a time


class S3Sidecars:
    """Reads sidecars; one whose ETag is still the same is not read again."""

    def __init__(self, bucket: S3Bucket) -> None:
        self._bucket = bucket
        self._known: dict[tuple[str, str], bytes] = {}  # by key and ETag

    def among(self, objects: Iterable[S3Object]) -> dict[int, bytes]:
        """Return the sidecars among `objects` by their steps; one deleted meanwhile is left out."""
        sidecars: dict[int, S3Object] = {}
        for entry in objects:
            step = step_of(entry.key)
            if step is not None and entry.key == sidecar_name(step):
                sidecars[step] = entry
        with ThreadPoolExecutor(_READERS) as readers:
            contents = list(readers.map(self._read, sidecars.values()))
        self._known = {
            (entry.key, entry.etag): data
            for entry, data in zip(sidecars.values(), contents, strict=True)
            if data is not None
        }
        return {
            step: data for step, data in zip(sidecars, contents, strict=True) if data is not None
        }

    def checkpoint(self, step: int, data: bytes, objects: Iterable[S3Object]) -> StoredCheckpoint:
        """Return a checkpoint whose files have their sizes among `objects`, or at a second look.

        A list is made page by page: a checkpoint deleted meanwhile may be in it by halves.

        Raises:
            NoSuchObject: It was deleted meanwhile.
            UnreadableFile: It is broken.
        """
        checkpoint = self.parse(step, data)
        sizes = {entry.key: entry.bytes for entry in objects}
        if any(sizes.get(file_key(checkpoint, n)) != f.bytes for n, f in checkpoint.files.items()):
            checkpoint = self.read(step)
            for name in checkpoint.files:
                self.look(checkpoint, name)
        return checkpoint

    def read(self, step: int) -> StoredCheckpoint:
        """Return what the sidecar of `step` says.

        Raises:
            NoSuchObject: There is none.
            UnreadableFile: It is none of ours.
        """
        return self.parse(step, self._bucket.read(sidecar_name(step)))

    def parse(self, step: int, data: bytes) -> StoredCheckpoint:
        """Return what the bytes of the sidecar of `step` say.

        Raises:
            UnreadableFile: They are none of ours.
        """
        return from_json(data, where=self._quoted(sidecar_name(step)), step=step)

    def look(self, checkpoint: StoredCheckpoint, name: str) -> S3Object:
        """Return the object of a file.

        Raises:
            UnreadableFile: It is missing, or not of the recorded size.
        """
        key = file_key(checkpoint, name)
        size = checkpoint.files[name].bytes
        try:
            there = self._bucket.head(key)
        except NoSuchObject:
            raise UnreadableFile(
                f"{self._quoted(key)} is missing, but the sidecar says that it has {size} bytes."
            ) from None
        if there.bytes != size:
            raise UnreadableFile(
                f"{self._quoted(key)} has {there.bytes} bytes, recorded are {size}: "
                "torn or altered."
            )
        return there

    def _read(self, entry: S3Object) -> bytes | None:
        known = self._known.get((entry.key, entry.etag))
        if known is not None:
            return known
        try:
            return self._bucket.read(entry.key)
        except NoSuchObject:
            return None

    def _quoted(self, key: str) -> str:
        return f"'{self._bucket.address(key)}'"


def file_key(checkpoint: StoredCheckpoint, name: str) -> str:
    """Return the key of a file of a checkpoint, e.g. `step-00000120/00000003-9f8a…/model.ckpt`."""
    upload = f"{checkpoint.upload}/" if checkpoint.upload else ""
    return f"{folder_name(checkpoint.step)}/{upload}{check_name(name, what='File')}"
