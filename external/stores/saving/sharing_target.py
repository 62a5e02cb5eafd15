"""Saving into a local store without writing again what did not change since the checkpoint before.

A file of the checkpoint before that has unchanged tensors gets one more name, a hard link: it
stays as long as one checkpoint needs it. What changed goes into a new file, and an index says what
the whole consists of (see `parts`, and `whole` for getting it back as one file). When there is
little to share, the file is written as the plain one that it would be otherwise.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...schema import UnreadableFile
from ..files.direct_file import DirectFile
from ..files.zip_layout import FileSource, records
from ..local import LocalStore, parts
from ..local.whole import read_index
from ..retention import Retention
from ..sidecar import folder_name
from ..store import Lease, StoredCheckpoint
from .staged_memory import staged
from .target import Image, StoreTarget
from .unchanged import BIG, Before, Plan, Stretch, plan


class SharingTarget(StoreTarget):
    """Puts into a local store, and shares with the newest checkpoint there what did not change.

    Args:
        store: Where checkpoints go.
        lease: The right to write to it.
        retention: What stays; None keeps all.
    """

    def __init__(
        self,
        store: LocalStore,
        *,
        lease: Lease | None = None,
        retention: Retention | None = None,
    ) -> None:
        super().__init__(store, lease=lease, retention=retention)
        self._root = store.root
        self._last: tuple[StoredCheckpoint, list[parts.Part]] | None = None

    def keep(self, source: Path, request: Mapping[str, Any]) -> StoredCheckpoint:
        """Put `source`, a torch file in staging memory that nobody changes meanwhile."""
        with FileSource(source) as file:
            big = [(offset, size) for _, offset, size in records(file) if size >= BIG]
            memory = staged(file.descriptor)
            assert memory is not None
            return self._put(_stretches(memory, big), request)

    def write(self, image: Image, request: Mapping[str, Any]) -> StoredCheckpoint:
        """Put `image`."""
        return self._put(image.stretches(BIG), request)

    def _put(self, stretches: list[Stretch], request: Mapping[str, Any]) -> StoredCheckpoint:
        step, name = request["step"], request["name"]
        before = self._newest(step, name)
        try:
            self._last = self._put_as(plan(stretches, name, step, before), stretches, request)
        except FileNotFoundError:
            if before is None:
                raise
            # Somebody deleted the checkpoint before.
            self._last = self._put_as(plan(stretches, name, step, None), stretches, request)
        self._prune()
        return self._last[0]

    def _put_as(
        self, plan: Plan, stretches: list[Stretch], request: Mapping[str, Any]
    ) -> tuple[StoredCheckpoint, list[parts.Part]]:
        index_name = request["name"] + parts.SUFFIX
        with self.store.drafting() as folder:
            (folder / index_name).write_bytes(parts.to_json(plan.index))
            own = [s for s, p in zip(stretches, plan.index, strict=True) if p.file == plan.own]
            with DirectFile(folder / plan.own, size=sum(s.size for s in own)) as file:
                for stretch in own:
                    for view in stretch.views():
                        file.write(view)
            files = {index_name: folder / index_name, plan.own: folder / plan.own}
            known = {plan.own: file.stored()}
            if plan.shared and self._last is not None:
                before = self._last[0]
                for new, old in plan.shared.items():
                    files[new] = self._root / folder_name(before.step) / old
                    known[new] = before.files[old]
            stored = self.store.put(
                request["step"],
                files,
                details=request["details"],
                lease=self.lease,
                move=True,
                known=known,
            )
        return stored, plan.index

    def _newest(self, step: int, name: str) -> Before | None:
        """Return the newest checkpoint if it says what it consists of and is whole."""
        newest = next(iter(reversed(self.store.list())), None)
        if newest is None or newest.step == step:
            return None  # if this one is there already, that is for the store to say
        if self._last is None or self._last[0] != newest:
            try:  # another process wrote it, who knows when
                index = read_index(self.store, newest, name, Path())
                self.store.verify(newest)
            except UnreadableFile:
                return None
            self._last = newest, index
        sizes = {file: stored.bytes for file, stored in newest.files.items()}
        return Before(newest.step, self._last[1], sizes)


def _stretches(content: memoryview, big: list[tuple[int, int]]) -> list[Stretch]:
    """Return the big storages, by offset and size, and what is between them."""
    found: list[Stretch] = []
    position = 0
    for offset, size in [*big, (len(content), 0)]:
        found.append(_stretch(content[position:offset], is_big=False))
        found.append(_stretch(content[offset : offset + size], is_big=True))
        position = offset + size
    return [stretch for stretch in found if stretch.size]


def _stretch(view: memoryview, *, is_big: bool) -> Stretch:
    return Stretch(len(view), lambda: [view], is_big)
