"""Which engine trained: the journal's event `engine`, written as a fit begins.

{"event": "engine", "time": 1763719200.4, "name": "lean"}
"""

from collections.abc import Iterable

from .journal import Event, Journal

TITLES = {"lightning": "Lightning's Trainer", "lean": "lean loop"}


def write_engine(journal: Journal | None, name: str) -> None:
    """Say what trains now; nothing on ranks without a journal."""
    if journal is not None:
        journal.write("engine", name=name)


def engines(events: Iterable[Event]) -> list[str]:
    """Return the titles of the engines that trained, each once, the latest last."""
    names = [str(event["name"]) for event in events if event["event"] == "engine"]
    latest = list(dict.fromkeys(reversed(names)))
    return [TITLES.get(name, name) for name in reversed(latest)]
