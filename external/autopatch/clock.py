"""Makes saves due: a thread that sleeps until the interval is over, or a copy is to be taken."""

import threading
import time
from collections.abc import Callable

from .wish import Wish

_AGAIN = 0.05  # seconds until what is due is asked for again
_NEVER = float("inf")


class Clock:
    """Asks for what is due, again and again until it is not.

    Args:
        seconds: Between two saves; None for none.
        held_due_at: Returns when the next copy in memory is due, by `time.monotonic`.
        ask: Called with what is due, in a thread.
    """

    def __init__(
        self,
        seconds: float | None,
        held_due_at: Callable[[], float],
        ask: Callable[[Wish], None],
    ) -> None:
        self._seconds = _NEVER if seconds is None else seconds
        self._held_due_at = held_due_at
        self._ask = ask
        self._next = _NEVER
        self._thread: threading.Thread | None = None

    def begin(self) -> None:
        """Count from now on."""
        self.saved()
        if self._thread is None:
            self._thread = threading.Thread(target=self._watch, daemon=True)
            self._thread.start()

    def saved(self) -> None:
        """The interval begins anew."""
        self._next = time.monotonic() + self._seconds

    def _watch(self) -> None:
        while True:
            now = time.monotonic()
            if now >= self._next:
                self._ask(Wish.SAVE)
            elif now >= self._held_due_at():
                self._ask(Wish.HOLD)
            left = min(self._next, self._held_due_at()) - now
            time.sleep(min(1.0, max(_AGAIN, left)))
