"""Where checkpoints are kept: a local directory, a TCP service, S3; one promise for all.

    with open_store("local", "root=/data/ckpt") as store:
        store.put(120, {"model.ckpt": path})

Names are imported on first use: a store brings only what it needs itself, no store torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..periodic_checkpoint import PeriodicCheckpoint
    from .async_io import AsyncCheckpointIO
    from .kinds import open_store
    from .local import LocalStore
    from .s3 import S3Store
    from .saver import Saver
    from .spool import SpoolingStore
    from .store import Store
    from .tcp import TcpStore
    from .verified_io import VerifiedCheckpointIO

_HOMES = {
    "AsyncCheckpointIO": ".async_io",
    "LocalStore": ".local",
    "PeriodicCheckpoint": "..periodic_checkpoint",
    "S3Store": ".s3",
    "SpoolingStore": ".spool",
    "Saver": ".saver",
    "Store": ".store",
    "TcpStore": ".tcp",
    "VerifiedCheckpointIO": ".verified_io",
    "open_store": ".kinds",
}

__all__ = [
    "AsyncCheckpointIO",
    "LocalStore",
    "PeriodicCheckpoint",
    "S3Store",
    "Saver",
    "SpoolingStore",
    "Store",
    "TcpStore",
    "VerifiedCheckpointIO",
    "open_store",
]


def __getattr__(name: str) -> object:
    """Import a name from its file when it is asked for (PEP 562)."""
    if name in _HOMES:
        found: object = getattr(import_module(_HOMES[name], __name__), name)
        globals()[name] = found
        return found
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
