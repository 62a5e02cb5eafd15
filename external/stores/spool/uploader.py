"""The thread of a spool that brings what waits to the store, in order, for as long as it takes."""

import threading
import warnings
from contextlib import suppress

from ...schema import UnreadableFile
from ..measuring import recorded_like
from ..store import CheckpointExists, LeaseLost, Store
from .folder import Spooled, SpoolFolder

LONGEST_PAUSE = 60.0  # seconds between two tries
LOOK_SECONDS = 0.5  # between two looks at what other processes have put


class SpoolUploader:
    """Empties `folder` into `store`. It begins at once."""

    def __init__(self, folder: SpoolFolder, store: Store) -> None:
        self.error: Exception | None = None
        """Why the store does not take anything at the moment; None if it does."""
        self._folder, self._store = folder, store
        self._changed = threading.Condition()
        self._woken = self._hurried = self._stopped = False
        self._busy = True  # from a look at the folder to the end of what it led to
        self._look_seconds: float | None = None
        self._thread = threading.Thread(target=self._work, name="spool", daemon=True)
        self._thread.start()

    def wake(self) -> None:
        """Say that there is something to do."""
        with self._changed:
            self._woken = True
            self._changed.notify_all()

    def look_around(self) -> None:
        """From now on other processes put into the folder as well."""
        self._look_seconds = LOOK_SECONDS
        self.wake()

    def flush(self, seconds: float) -> bool:
        """Wait until everything is done; returns whether it is, after `seconds` at most."""
        with self._changed:
            self._woken = self._hurried = True  # try again at once
            self._changed.notify_all()
            return self._changed.wait_for(self._is_done, seconds)

    def stop(self, seconds: float) -> bool:
        """End after the upload that is under way; returns whether that was within `seconds`."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def _is_done(self) -> bool:
        if self._busy:  # something that was deleted may be on its way
            return False
        return not self._folder.waiting() and self._folder.pruning.asked() is None

    def _work(self) -> None:
        failures = 0
        while not self._stopped:
            with self._changed:
                self._busy, self._woken, self._hurried = True, False, False
            did = False
            try:
                did = self._step()
                failures, self.error = 0, None
            except Exception as error:
                failures += 1
                if failures == 1:
                    self._warn(f"Checkpoints stay in '{self._folder.folder}' for now: {error}")
                self.error = error
            with self._changed:
                self._busy = False
                self._changed.notify_all()
                if did:
                    continue
                if failures:
                    pause = min(LONGEST_PAUSE, 0.1 * 2**failures)
                    self._changed.wait_for(lambda: self._stopped or self._hurried, pause)
                else:
                    self._changed.wait_for(lambda: self._stopped or self._woken, self._look_seconds)

    def _step(self) -> bool:
        """Upload what was put first, then prune; returns whether there was something to do."""
        waiting = self._folder.waiting()
        if waiting:
            try:
                self._upload(waiting[0])
            except (CheckpointExists, LeaseLost, UnreadableFile, ValueError) as error:
                self._set_aside(waiting[0], error)
        request = self._folder.pruning.asked()
        if request is not None:
            try:
                lease = self._folder.leases.heir(request.lease)
                self._store.prune(request.retention, lease=lease)
            except LeaseLost as error:
                self._warn(f"Nothing was pruned: {error}")
            self._folder.pruning.done(request, unless=lambda: bool(self._folder.waiting()))
        return bool(waiting)

    def _upload(self, spooled: Spooled) -> None:
        lease = self._folder.leases.heir(spooled.lease)
        given = spooled.checkpoint
        put = self._store.put(
            given.step, spooled.paths, details=given.details, lease=lease, known=given.files
        )
        if put.files != recorded_like(put.files, given.files, spooled.paths):
            self._store.delete(given.step, lease=lease)
            raise UnreadableFile(f"Step {given.step} was altered in '{self._folder.folder}'.")
        if not self._folder.remove(spooled):  # it was deleted while it was on its way
            self._store.delete(given.step, lease=lease)

    def _set_aside(self, spooled: Spooled, error: Exception) -> None:
        if isinstance(error, LeaseLost) and spooled.lease is not None:
            self._folder.leases.lost(spooled.lease, str(error))
        found = self._folder.set_aside(spooled)
        self._warn(f"Step {spooled.checkpoint.step} was refused, {found}: {error}")

    def _warn(self, sentence: str) -> None:
        with suppress(Warning):  # where warnings are errors, the thread must go on
            warnings.warn(sentence, stacklevel=1)
