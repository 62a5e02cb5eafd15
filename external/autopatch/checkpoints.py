"""The checkpoints of one script: what its store has, the newest that all ranks have, adding one.

A checkpoint's sidecar says {"autopatch": 1, "script": "train.py", "steps": 120, "complete": false,
"world_size": 1}; its file is what `position.take` returned. When the script has ended by itself, a
last checkpoint says "complete": true.
"""

import contextlib
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from ..schema import UnreadableFile
from ..stores.known import check_known
from ..stores.lease_holder import holder
from ..stores.retention import Retention
from ..stores.store import Store, StoredCheckpoint, StoreError
from .findings import LOG
from .ranks import Ranks
from .settings import CONFIG, AutopatchSettings, BadVariable

if TYPE_CHECKING:
    from ..stores.saver import Saver

FILE = "script.ckpt"
KEPT = Retention(newest=2)
SCHEMA = 1  # of the details and of positions


class Checkpoints:
    """Those of one script, and of this rank of it.

    Args:
        settings: What the variables say.
        script: Its name in the sidecars.
        ranks: This rank among others; None where there is only one.

    Raises:
        BadVariable: The store cannot be used, or holds something else.
    """

    def __init__(self, settings: AutopatchSettings, script: str, ranks: Ranks | None) -> None:
        self.script = script
        self.ranks = ranks
        self._settings = settings
        self._mine = settings if ranks is None else settings.for_rank(ranks.rank)
        self._store = self._mine.open()
        self._source = self._store  # of those by another number of ranks
        self._saver: Saver | None = None
        self._lease = contextlib.ExitStack()
        self._all_are_complete = True
        self._newest = self._look()
        if settings.again:
            for each in self._list(self._store):
                self._store.delete(each.step)
            self._newest = None

    def _look(self) -> StoredCheckpoint | None:
        """Return the newest there is: here, of the lead, or of a single process."""
        lead = self._settings.for_rank(0)
        existing = self._list(self._store)
        for other in (lead, self._settings if self.ranks is not None else lead):
            if other != self._mine and other.may_exist():
                opened = other.open()
                found = self._list(opened)
                if found and (not existing or found[-1].step > existing[-1].step):
                    existing, self._source = found, opened
        return existing[-1] if existing else None

    def agree(self) -> None:
        """Have all ranks begin alike, also where only some of them had saved when all were killed.

        What some saved for the first time, and others did not, nobody can go on from: it goes. A
        script is complete when all ranks say so.

        Raises:
            BadVariable: Some ranks have saves, and others have none any more.
        """
        if self.ranks is None:
            return
        own = [each for each in self._list(self._store) if self._is_of_as_many(each)]
        told = self.ranks.gathered("saves", [len(own), int(self.is_complete)])
        numbers = [number for number, _ in told]
        self._all_are_complete = all(complete for _, complete in told)
        if min(numbers) > 0 or max(numbers) == 0 or self._all_are_complete:
            return
        if max(numbers) > 1:  # as many as are kept: others had saved before, too
            without = [rank for rank, number in enumerate(numbers) if number == 0]
            raise BadVariable(
                f"{CONFIG} names a store in which ranks {without} have no checkpoint, but others "
                "have. Bring them back, or delete those of all ranks to begin anew."
            )
        for each in own:
            self._store.delete(each.step)
        self.ranks.gathered("cleared", [])  # by all: a look is at those of others, too
        self._newest = self._look()
        if self.ranks.rank == 0:
            LOG.warning("The first save was not finished on all ranks: what it has is left out.")

    def _is_of_as_many(self, checkpoint: StoredCheckpoint) -> bool:
        return bool(checkpoint.details.get("world_size") == self.world_size)

    @property
    def is_complete(self) -> bool:
        """Whether the script has ended by itself."""
        return (
            self._all_are_complete
            and self._newest is not None
            and bool(self._newest.details["complete"])
        )

    @property
    def is_empty(self) -> bool:
        """Whether there is none."""
        return self._newest is None

    @property
    def steps(self) -> int:
        """The steps of the newest."""
        return 0 if self._newest is None else int(self._newest.details["steps"])

    @property
    def world_size(self) -> int:
        """How many ranks there are now."""
        return 1 if self.ranks is None else self.ranks.world_size

    def _list(self, store: Store) -> list[StoredCheckpoint]:
        """Return what is in a store, if all of it is of this script.

        Raises:
            BadVariable: Something is not, or it cannot be read.
        """
        try:
            existing = store.list()
            check_known(store, existing[-1].step if existing else None)
        except (OSError, StoreError) as error:
            raise BadVariable(f"{CONFIG} names a store that cannot be read ({error}).") from error
        foreign = [each for each in existing if each.details.get("autopatch") != SCHEMA]
        if foreign:
            raise BadVariable(
                f"{CONFIG} names a store that holds a checkpoint of something else (step "
                f"{foreign[-1].step}). Name another root."
            )
        other = [each for each in existing if each.details.get("script") != self.script]
        if other:
            raise BadVariable(
                f"{CONFIG} names a store that holds checkpoints of {other[-1].details['script']}, "
                f"not of {self.script}. Name another root."
            )
        return existing

    def read(self) -> tuple[StoredCheckpoint, dict[str, Any]]:
        """Return the newest whole one, and what is in it; where there is none, an error.

        Raises:
            BadVariable: It cannot be read.
        """
        import torch

        with TemporaryDirectory(prefix="curitorch-") as folder:
            found = self._fetch(Path(folder))
            if found is None:
                raise BadVariable(
                    f"{CONFIG} names a store whose checkpoints are all torn or altered, or that "
                    "has none of a step that all ranks have. Delete them to begin anew."
                )
            stored, path = found
            saved: dict[str, Any] = torch.load(path, weights_only=True)
        if saved.get("schema") != SCHEMA:
            raise BadVariable(
                f"The checkpoint of step {stored.step} has schema {saved.get('schema')!r}, "
                f"expected {SCHEMA}. Use the curitorch that wrote it."
            )
        return stored, saved

    def _fetch(self, folder: Path) -> tuple[StoredCheckpoint, Path] | None:
        """Return the newest checkpoint that can be read, here and on all other ranks."""
        assert self._newest is not None
        if not self._is_of_as_many(self._newest):
            return self._source.fetch_newest_valid(FILE, folder)
        if self.ranks is None:
            return self._store.fetch_newest_valid(FILE, folder)
        found: dict[int, tuple[StoredCheckpoint, Path]] = {}
        for each in self._store.list():
            if not self._is_of_as_many(each):
                continue
            try:
                path = self._store.fetch(each, FILE, folder / str(each.step))
                found[each.step] = (each, path)
            except UnreadableFile as error:
                LOG.warning("Passed over a checkpoint: %s", error)
        common = self.ranks.common(list(found))
        if common is None:
            return None
        for step in [each for each in found if each > common]:
            self._store.delete(step)  # another rank has not got so far
        self._newest = found[common][0]
        return found[common]

    def put(self, state: dict[str, Any], *, steps: int, complete: bool) -> None:
        """Add one; it is durable when `close` returns."""
        step = max(steps, 0 if self._newest is None else self._newest.step + 1)
        details = {
            "autopatch": SCHEMA,
            "script": self.script,
            "steps": steps,
            "complete": complete,
            "world_size": self.world_size,
        }
        self._open_saver().save(step, state, name=FILE, details=details)
        self._newest = StoredCheckpoint(step, {}, details)

    def _open_saver(self) -> "Saver":
        if self._saver is None:
            from ..stores.saver import Saver

            lease = self._lease.enter_context(self._store.lease(holder()))
            self._saver = Saver(self._store, asynchronous=True, lease=lease, retention=KEPT)
        return self._saver

    def close(self) -> None:
        """Wait until all is durable, and let go of the store's lease."""
        saver, self._saver = self._saver, None
        with self._lease:
            if saver is not None:
                saver.close()
