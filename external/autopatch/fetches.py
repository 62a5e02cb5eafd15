"""The generators before each of the last batches that a loader without workers has fetched.

Loops of frameworks are saved after a batch was fetched that is not trained on yet, or two; a new
process fetches them again, from the generators as they were.
"""

import collections
from typing import Any

from . import generators

_KEPT = 3


class Fetches:
    """Notes the fetches of the iterator `it`: in `before`, the oldest first."""

    def __init__(self, it: Any) -> None:
        self.before: collections.deque[dict[str, Any]] = collections.deque(maxlen=_KEPT)
        fetch = it._next_data

        def fetch_noted() -> Any:
            self.before.append(generators.take_cpu())
            return fetch()

        it._next_data = fetch_noted


def replay(it: Any, before: list[dict[str, Any]], after: dict[str, Any] | None) -> None:
    """Let the next fetches of `it` begin as noted.

    Args:
        it: An iterator, about to fetch what was fetched already.
        before: Of each of these fetches.
        after: What the generators are when they are done; None leaves them.
    """
    own, left = it._next_data, list(before)

    def fetch() -> Any:
        if left:
            generators.put(left.pop(0))
        item = own()
        if not left:
            it._next_data = own
            if after is not None:
                generators.put(after)
        return item

    it._next_data = fetch
