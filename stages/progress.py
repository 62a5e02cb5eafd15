"""Where a training run stands: see `curitorch.external.progress`, as notebooks show it too."""

from ..external.progress import Progress

__all__ = ["Progress"]
