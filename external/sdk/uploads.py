"""Uploads: what the script saved goes into the run's store, in the background, from all ranks.

Each rank says in a file what it sees when it calls, and goes on. A thread of rank 0 waits until
all have called, copies what any of them saw and is still the same, and puts it into the store:
whole, verified, with its sidecar. What cannot be taken is a gap: one warning, a count, and the
checkpoints before are as they were.
"""

import contextlib
import logging
import queue
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..journal import Journal
from ..stores.lease_holder import holder
from ..stores.retention import Retention
from ..stores.store import Lease, Store, StoreError
from .calls_made import PATIENCE, CallsMade
from .saved_files import (
    FileChanged,
    Held,
    State,
    changed,
    copy,
    hold,
    release,
    state_of,
    states,
    stored_names,
)

AT_ONCE = 32 * 2**20  # bytes of small files that a call reads: about 10 ms from the page cache
MOST_AT_ONCE = 4  # calls that wait with what they read


@dataclass(frozen=True)
class _Call:
    step: int
    root: Path
    seen: dict[str, State]
    held: dict[str, Held]
    details: dict[str, Any]


class Uploads:
    """One rank's part in uploading; what a call raises, it raises in its own thread only.

    Args:
        open_store: Opens the run's store; called by rank 0's thread, at the first upload.
        folder: Where the ranks meet.
        rank: This process.
        world_size: All processes.
        retention: What stays in the store; None keeps all.
        journal: Where rank 0 writes what it stored.
        patience: Seconds to wait for the other ranks.

    Attributes:
        lost: How many uploads could not be taken.
    """

    def __init__(
        self,
        open_store: Callable[[], Store],
        *,
        folder: Path,
        rank: int = 0,
        world_size: int = 1,
        retention: Retention | None = None,
        journal: Journal | None = None,
        patience: float = PATIENCE,
    ) -> None:
        self.folder = folder
        self.lost = 0
        self._open_store = open_store
        self._rank = rank
        self._world_size = world_size
        self._calls_made = CallsMade(folder, patience=patience)
        self._retention = retention
        self._journal = journal
        self._before: dict[Path, dict[str, State]] = {}
        self._calls: queue.SimpleQueue[_Call | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._opened: tuple[Store, Lease] | None = None
        self._held = contextlib.ExitStack()
        self._last_step: int | None = None
        self._warned: set[str] = set()

    def watch(self, root: Path) -> None:
        """Take what lies in `root` now as saved before: it is not part of the next upload."""
        self._before[root] = states(root)

    def add(self, step: int, path: Path, *, details: Mapping[str, Any]) -> None:
        """Upload the file or folder `path`; of a watched folder, what was saved since last time.

        All ranks call it for the same steps.
        """
        root, seen = self._look(path)
        if self._world_size > 1:
            self._last_step = step
            self._calls_made.say(step, self._rank, seen)
        if self._rank == 0:
            read = AT_ONCE if self._calls.qsize() < MOST_AT_ONCE else 0
            held = hold(root, seen, read=read)
            self._calls.put(_Call(step, root, seen, held, dict(details)))
            if self._thread is None:
                name = "curitorch-uploads"
                self._thread = threading.Thread(target=self._run, name=name, daemon=True)
                self._thread.start()

    def close(self, *, is_pressed: Callable[[], bool] = lambda: False) -> None:
        """Wait until the last upload is durable, on all ranks.

        Args:
            is_pressed: Returns whether the launcher wants this process gone, because another
                rank died: then only rank 0's own upload is waited for.
        """
        if self._world_size > 1 and self._rank > 0:
            self._calls_made.say_closed(self._rank)
            if self._last_step is not None:
                self._calls_made.wait_until_taken(self._last_step, self._rank, is_pressed)
        if self._thread is not None:
            self._calls.put(None)
            self._thread.join()
        if self._world_size > 1 and self._rank == 0:
            self._calls_made.say_closed(0)

    def _look(self, path: Path) -> tuple[Path, dict[str, State]]:
        """Return the folder that names are relative to, and what is to be uploaded of it."""
        for root, before in self._before.items():
            if path.is_relative_to(root):
                now = states(root)
                if path == root:
                    seen = changed(now, before)
                else:
                    inside = path.relative_to(root)
                    seen = {n: s for n, s in now.items() if Path(n).is_relative_to(inside)}
                before.update(seen)
                return root, seen
        if path.is_dir():
            return path.parent, {f"{path.name}/{name}": s for name, s in states(path).items()}
        state = state_of(path)
        return path.parent, {} if state is None else {path.name: state}

    def _run(self) -> None:
        """Take one call after the other: the thread of rank 0."""
        with self._held:
            while (call := self._calls.get()) is not None:
                try:
                    self._take(call)
                except (OSError, StoreError, ValueError) as error:
                    self.lost += 1
                    self._warn(
                        "lost",
                        f"The checkpoint of step {call.step} was not uploaded ({error}). Training "
                        "goes on; uploads that fail from now on are only counted.",
                    )
                    if self._journal is not None:
                        self._journal.write("upload_failed", step=call.step, error=str(error))
                finally:
                    release(call.held)
                    self._calls_made.take(call.step, self._world_size)
        if self.lost:
            _log(f"{self.lost} uploads were lost.")

    def _take(self, call: _Call) -> None:
        views = [call.seen]
        for rank in range(1, self._world_size):
            view = self._calls_made.seen(call.step, rank)
            if view is None:
                self._warn(
                    "alone",
                    f"Rank {rank} did not call upload_checkpoint() at step {call.step}. Call it on "
                    "all ranks: what that rank saved may be missing.",
                )
            views.append(view or {})
        paths = sorted({path for view in views for path in view})
        if not paths:
            self._warn(
                "nothing",
                f"upload_checkpoint() at step {call.step}: nothing was saved in '{call.root}' "
                "since the last time. Save before, or pass the path.",
            )
            return
        store, lease = self._opened = self._opened or self._open()
        if self._journal is not None:
            self._journal.fsync()  # what led to this step is as durable as the step
        names = stored_names(paths)
        details = {**call.details, "paths": {names[path]: path for path in paths}}
        with store.drafting() as folder:
            for path in paths:
                self._copy(call, path, views, folder / names[path])
            stored = store.put(
                call.step,
                {name: folder / name for name in names.values()},
                details=details,
                lease=lease,
                move=True,
            )
        if self._journal is not None:
            self._journal.write(
                "checkpoint", step=stored.step, epoch=details.get("epoch"), bytes=stored.bytes
            )
        if self._retention is not None:
            store.prune(self._retention, lease=lease)

    def _open(self) -> tuple[Store, Lease]:
        """Open and lease the store until the thread ends: both, or neither."""
        with contextlib.ExitStack() as both:
            store = both.enter_context(self._open_store())
            lease = both.enter_context(store.lease(holder()))
            self._held.enter_context(both.pop_all())
        return store, lease

    def _copy(self, call: _Call, path: str, views: list[dict[str, State]], target: Path) -> None:
        """Copy a file that is as one of the ranks saw it when it called.

        Raises:
            FileChanged: It is not any more.
        """
        known = [view[path] for view in views if path in view]
        held = call.held.get(path)
        if state_of(call.root / path) in known:
            fresh = hold(call.root, [path])  # perhaps another rank's, which was not here before
            try:
                if path in fresh and fresh[path].state in known:
                    copy(path, fresh[path], target)
                    if call.root in self._before:
                        self._before[call.root][path] = fresh[path].state
                    return
            finally:
                release(fresh)
        # Changed since, but we have it. A rank that looked before us may have seen a part of ours;
        # one that saw a later state wrote it, and what it wrote is gone.
        elif held is not None and held.state == max(known, key=lambda state: state[1]):
            copy(path, held, target)
            return
        raise FileChanged(f"'{call.root / path}' was written over before it could be uploaded.")

    def _warn(self, kind: str, sentence: str) -> None:
        if kind not in self._warned:
            self._warned.add(kind)
            _log(sentence)


def _log(sentence: str) -> None:
    logging.getLogger("curitorch").warning("%s", sentence)
