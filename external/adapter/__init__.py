"""The adapter: your LightningModule on a lean, exact loop.

    from curitorch.external.adapter import LeanTrainer, LeanModule, LeanDataModule, SUPPORT

Nothing is imported before it is asked for: the names need torch and Lightning.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .hooks import SUPPORT
    from .lean import LeanTrainer
    from .lean_data_module import LeanDataModule
    from .lean_module import LeanModule

__all__ = ["SUPPORT", "LeanDataModule", "LeanModule", "LeanTrainer"]

_HOMES = {
    "SUPPORT": "hooks",
    "LeanDataModule": "lean_data_module",
    "LeanModule": "lean_module",
    "LeanTrainer": "lean",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)
