"""Following a training run from its files alone: its events as they come, and a picture of them.

    for event in run.follow():
        print(event)

Nothing is sent to the training and nothing of it is locked: who stops following stops nothing else.
"""

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

from ..journal import Event, JournalTail
from ..layout import Layout
from ..run_state import RunState, run_state
from .live_picture import LivePicture

_HEAD_BYTES = 256


class Following:
    """The events of a run, those that there are and those to come; made by `TrainingRun.follow`.

    An iterable for scripts; as the last value of a notebook's cell it shows the newest line and the
    curves until the run is over. Ctrl-C, or the notebook's stop button, ends the following and
    not the training: a loop gets KeyboardInterrupt as any other, a cell says so in a sentence.

    Args:
        run: The run directory, which need not exist yet.
        every: Seconds between two looks at the files.
        timeout: Seconds after which the following ends in any case; None waits without limit.
        through: Go on through ends that are not the completion: to the next attempt.
    """

    def __init__(
        self,
        run: Path,
        *,
        every: float = 0.5,
        timeout: float | None = None,
        through: bool = False,
    ) -> None:
        if every <= 0:
            raise ValueError(f"every is {every!r}, expected seconds above 0, e.g. every=0.5.")
        self.run = run
        self.every = every
        self.timeout = timeout
        self.through = through

    def __iter__(self) -> Iterator[Event]:
        """Yield every event of the journal in the order written, until the run is over.

        An event "attempt" with the `resume_step` N takes back what came before beyond step N.
        A run that is begun anew in its emptied directory begins with its first event again.
        """
        for event in self._looks():
            if event is not None:
                yield event

    def _looks(self) -> Iterator[Event | None]:
        """Yield the events, and None after each look at the files that is not the last one."""
        ends = None if self.timeout is None else time.monotonic() + self.timeout
        journal = _Journal(Layout(self.run).journal)
        while True:
            # Looked at before the journal is read: what it says has been written by then.
            over = self._is_over(run_state(self.run))
            yield from journal.read()
            if over or (ends is not None and time.monotonic() >= ends):
                return
            yield None
            left = self.every if ends is None else min(self.every, ends - time.monotonic())
            time.sleep(max(0.0, left))

    def _is_over(self, state: RunState) -> bool:
        return state.is_over and (state.word == "complete" or not self.through)

    def _ipython_display_(self) -> None:
        """Show the run in a cell until it is over, or until the kernel is interrupted."""
        picture = LivePicture(self.run)
        try:
            for event in self._looks():
                if event is not None:
                    picture.take_in(event)
                else:
                    picture.show()
            picture.show(final=run_state(self.run).sentence)
        except KeyboardInterrupt:
            with contextlib.suppress(KeyboardInterrupt):  # pressed twice
                picture.show(final="No longer followed. The training was not touched.")


class _Journal:
    """A journal that may be deleted and begun anew while it is read."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._tail = JournalTail(path)
        self._head = b""

    def read(self) -> list[Event]:
        try:
            with self._path.open("rb") as file:
                head = file.read(_HEAD_BYTES)
        except OSError:
            return []
        if not head.startswith(self._head):  # its first line, with its time, is another one
            self._tail = JournalTail(self._path)
        self._head = head
        return self._tail.read()
