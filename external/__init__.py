"""What runs in the trainer processes, and the files they write. Imports without curifactory.

from curitorch.external import CurifactoryLogger
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .curifactory_logger import CurifactoryLogger

__all__ = ["CurifactoryLogger"]


def __getattr__(name: str) -> object:
    """Import what is asked for (PEP 562): it brings Lightning."""
    if name in __all__:
        from . import curifactory_logger

        return getattr(curifactory_logger, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
