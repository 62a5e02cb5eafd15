"""Large arrays and tensors that have not changed since the first loop: data, saved by nobody."""

from typing import Any

import numpy as np
import torch

from ..checksum import Checksum
from .kinds_of_values import is_large


class Constants:
    """Remembers large arrays and tensors as they were before training began."""

    def __init__(self) -> None:
        self._tensors: dict[int, tuple[torch.Tensor, int]] = {}
        self._arrays: dict[int, tuple[Any, str]] = {}

    def note(self, namespaces: list[dict[str, Any]]) -> None:
        """Remember those in the variables given."""
        for namespace in namespaces:
            for value in list(namespace.values()):
                for each in value if isinstance(value, list | tuple) else (value,):
                    self._note(each)

    def _note(self, value: Any) -> None:
        if isinstance(value, torch.Tensor) and is_large(value) and not value.requires_grad:
            self._tensors[id(value)] = (value, value._version)
        elif isinstance(value, np.ndarray) and is_large(value) and not value.dtype.hasobject:
            self._arrays[id(value)] = (value, _checksum(value))

    def has(self, value: Any) -> bool:
        """Return whether `value` is one of them, and as it was."""
        if id(value) in self._tensors:
            return bool(self._tensors[id(value)][1] == value._version)
        if id(value) in self._arrays:
            return self._arrays[id(value)][1] == _checksum(value)
        return False


def _checksum(array: Any) -> str:
    digest = Checksum()
    digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return digest.text
