"""The plain attributes of the user's classes, which count or collect for all their objects."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .users import USERS
from .values import is_restorable

if TYPE_CHECKING:
    from .encoder import Encoder
    from .tracker import Tracker


def take(tracker: "Tracker", encoder: "Encoder") -> dict[str, dict[str, Any]]:
    """Return those of the classes that the files of the script define."""
    found: dict[str, dict[str, Any]] = {}
    for kind in _classes(tracker):
        own = {
            name: encoder.encode(value)
            for name, value in vars(kind).items()
            if not name.startswith("__") and _is_plain(value)
        }
        kept = {name: node for name, node in own.items() if is_restorable(node)}
        if kept:
            found[f"{kind.__module__}:{kind.__qualname__}"] = kept
    return found


def put(
    tracker: "Tracker", saved: dict[str, dict[str, Any]], decode: Callable[[Any, Any], Any]
) -> None:
    """Give classes what they had."""
    for kind in _classes(tracker):
        for name, node in saved.get(f"{kind.__module__}:{kind.__qualname__}", {}).items():
            old = vars(kind).get(name)
            new = decode(node, old)
            if new is not old:
                setattr(kind, name, new)


def _classes(tracker: "Tracker") -> list[type]:
    found: dict[int, type] = {}
    for namespace in tracker.namespaces.values():
        for value in list(namespace.values()):
            if isinstance(value, type) and USERS.is_class(value) and not _is_enum(value):
                found[id(value)] = value
    return list(found.values())


def _is_enum(kind: type) -> bool:
    return any(each.__module__ == "enum" for each in kind.__mro__)


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, bool | int | float | str | list | dict | set)
