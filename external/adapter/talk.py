"""When the ranks talk about stopping: at steps agreed beforehand, a few times a second.

A collective per batch would cost more than many a step. Each talk agrees, besides what it is
about, after how many steps the next one comes: so many as take about `SECONDS`.
"""

import time

SECONDS = 0.25
LONGEST = 1000


class Talk:
    """Counts to the next talk; a single process talks each time."""

    def __init__(self, world_size: int) -> None:
        self.world_size = world_size
        self._next = 0
        self._last, self._at = 0, time.monotonic()

    def is_due(self, count: int) -> bool:
        """Return whether all ranks talk at `count`, the same number on each."""
        return self.world_size == 1 or count >= self._next

    def pause(self, count: int) -> int:
        """Return after how many counts this rank would talk again; the ranks take the largest."""
        now = time.monotonic()
        done, seconds = count - self._last, now - self._at
        self._last, self._at = count, now
        if done <= 0 or seconds <= 0:
            return 1
        return max(1, min(LONGEST, round(SECONDS * done / seconds)))

    def agreed(self, count: int, pause: int) -> None:
        """Take note of what the ranks agreed on at `count`."""
        self._next = count + pause
