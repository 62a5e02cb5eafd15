"""The emergency save: all ranks learn of one step to save at, without a collective.

Somebody asks: SIGTERM or SIGUSR1 (Slurm's notice) to any rank, or a file from the stage. Then a
thread of every rank posts, in a file that the others see, the last step that its script has been
told to be no emergency. Once all have posted, the step is the one after the highest of these. A
rank that gets beyond its post before it knows them all waits there, for about as long as two
looks of the threads take; until somebody asks, a step costs a look at one attribute.

The threads post whatever the scripts do, so that a rank which waits for another cannot hang: the
other's thread posts though its script stands in a collective that needs the first.

    <folder>/request.json      {"reason": "SIGTERM"}
    <folder>/rank-0.json       {"step": 119}
"""

import contextlib
import json
import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import FrameType
from typing import Any

REQUEST = "request.json"
POLL = 0.05  # seconds between two looks
PATIENCE = 20.0  # seconds until a rank that does not post is given up: less than a stage's grace
SIGNALS = (signal.SIGTERM, signal.SIGUSR1)


class Emergency:
    """One rank's part in agreeing on a step.

    Args:
        folder: Where the ranks meet; a directory of a file system that all of them see.
        rank: This process.
        world_size: All processes.
        step: Returns the step that was started last.
        patience: Seconds to wait for the others' posts.
    """

    def __init__(
        self,
        folder: Path,
        *,
        rank: int,
        world_size: int,
        step: Callable[[], int],
        patience: float = PATIENCE,
    ) -> None:
        self.folder = folder
        self.reason: str | None = None
        self.signals = 0
        self.step: int | None = None
        self._rank = rank
        self._world_size = world_size
        self._now = step
        self._patience = patience
        self._answered = -1  # the last step that was said to be no emergency
        self._is_asked = False
        self._post: int | None = None
        self._posted = threading.Event()
        self._known = threading.Event()
        self._closed = threading.Event()
        self._before: dict[int, Any] = {}
        self._pid = os.getpid()
        self._thread = threading.Thread(target=self._watch, name="curitorch-emergency", daemon=True)

    def listen(self) -> None:
        """Take the signals, if this is the main thread, and look for requests of others.

        A handler of the script's own is called after ours.
        """
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                handler = signal.getsignal(number)
                if number == signal.SIGUSR1 and handler is not signal.SIG_DFL:
                    continue  # it means something else to the script
                self._before[number] = handler
                signal.signal(number, self._remember)
        self._thread.start()

    def is_due(self, step: int) -> bool:
        """Return whether `step` is the one to save at, or later; the same on all ranks."""
        # In this order: whoever sets `_is_asked` reads `_answered` after.
        self._answered = max(self._answered, step)
        if not self._is_asked:
            return False
        return self._is_reached(step)

    def is_over(self, step: int) -> bool:
        """Return whether `step`, which is about to begin, lies beyond the one to save at."""
        return self._is_asked and self._is_reached(step - 1)

    def close(self) -> None:
        """Stop looking, and leave a post for ranks that agree later."""
        if self._closed.is_set():
            return
        self._closed.set()
        if self._thread.is_alive():
            self._thread.join(2 * POLL + 1)
        if self._world_size > 1 and self._post is None:
            with contextlib.suppress(OSError):
                put_whole(self._own_file(), {"step": self._now()})

    def give_back_signals(self) -> None:
        """Install the handlers that were there before; only in the main thread."""
        for number, handler in self._before.items():
            if signal.getsignal(number) == self._remember:
                signal.signal(number, handler)

    def _remember(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._pid:  # a forked worker, which is to end as if we were not here
            signal.signal(number, self._before[number])
            os.kill(os.getpid(), number)
            return
        self.signals += 1
        self.reason = self.reason or signal.Signals(number).name
        before = self._before.get(number)
        if callable(before):
            before(number, frame)

    def _is_reached(self, step: int) -> bool:
        self._posted.wait(self._patience)
        if self._post is None or step <= self._post:
            return False
        if not self._known.wait(self._patience) and self.step is None:
            self.step = step
            logging.getLogger("curitorch").warning(
                "Not all of %d ranks agreed on a step to save at within %g s: step %d it is here. "
                "Every rank has to call init() and start_step().",
                self._world_size,
                self._patience,
                step,
            )
        return step >= (self.step or 0)

    def _watch(self) -> None:
        """Look for requests, post, and gather the others' posts."""
        request = str(self.folder / REQUEST)
        while not self._closed.wait(POLL):
            # Path.exists() takes twice as long, twenty times a second.
            if self.reason is None and not os.path.exists(request):  # noqa: PTH110
                continue
            with contextlib.suppress(OSError):  # a full disk, perhaps; look again
                self._ask()
                if self._gather():
                    return

    def _ask(self) -> None:
        """Post once, and make the request known to the others."""
        if self._post is None:
            if self.reason is None:
                self.reason = read_request(self.folder) or "a request"
            self._is_asked = True
            self._post = max(self._answered, self._now() - 1)
            self._posted.set()
        if self._world_size > 1:
            if not (self.folder / REQUEST).exists():
                request(self.folder, self.reason or "a request")
            if not self._own_file().exists():
                put_whole(self._own_file(), {"step": self._post})

    def _gather(self) -> bool:
        """Return whether all ranks have posted; then the step is known."""
        posts = [self._post or 0]
        for rank in range(self._world_size):
            if rank != self._rank:
                try:
                    text = (self.folder / f"rank-{rank}.json").read_text(encoding="utf-8")
                    posts.append(int(json.loads(text)["step"]))
                except (FileNotFoundError, ValueError, KeyError, TypeError):
                    return False
        if self.step is None:
            self.step = max(posts) + 1
        self._known.set()
        return True

    def _own_file(self) -> Path:
        return self.folder / f"rank-{self._rank}.json"


def request(folder: Path, reason: str) -> None:
    """Ask the ranks that meet in `folder` to save and end, as soon as they can agree.

    Raises:
        OSError: The request could not be written.
    """
    put_whole(folder / REQUEST, {"reason": reason})


def read_request(folder: Path) -> str | None:
    """Return why the ranks that meet in `folder` were asked to save; None if they were not."""
    try:
        return str(json.loads((folder / REQUEST).read_text(encoding="utf-8"))["reason"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def put_whole(path: Path, record: Mapping[str, object]) -> None:
    """Write a small record so that it appears whole; it need not survive a power loss."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".incomplete-{path.name}-{os.getpid()}-{time.monotonic_ns()}")
    try:
        temporary.write_text(json.dumps(record), encoding="utf-8")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
