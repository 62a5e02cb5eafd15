"""Where checkpoints are kept: a local directory, a TCP service, S3; one promise for all.

    with open_store("local", "root=/data/ckpt") as store:
        store.put(120, {"model.ckpt": path})

Names are imported on first use: a store brings only what it needs itself, and no store torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .kinds import open_store
    from .local import LocalStore
    from .s3 import S3Store
    from .store import Store
    from .tcp import TcpStore

_HOMES = {
    "LocalStore": "local",
    "S3Store": "s3",
    "Store": "store",
    "TcpStore": "tcp",
    "open_store": "kinds",
}

__all__ = ["LocalStore", "S3Store", "Store", "TcpStore", "open_store"]


def __getattr__(name: str) -> object:
    """Import a name from its file when it is asked for (PEP 562)."""
    if name in _HOMES:
        found: object = getattr(import_module(f".{_HOMES[name]}", __name__), name)
        globals()[name] = found
        return found
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
