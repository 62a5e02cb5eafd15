"""What may be given to `self.log`, and as which tensor it counts."""

import numbers
from typing import Any

import torch
from lightning.pytorch.utilities.data import extract_batch_size
from torch import Tensor
from torchmetrics import Metric

from .logged_value import default_dtype


def check_kind(name: str, value: Any) -> None:
    """Let through a number, a tensor with one element, or a Metric.

    Raises:
        ValueError: It is something else.
    """
    if isinstance(value, dict):
        nested = any(isinstance(v, dict) for v in value.values())
        raise ValueError(
            f"`self.log({name}, {value})` was called, but "
            + (
                "nested dictionaries cannot be logged"
                if nested
                else "`dict` values cannot be logged"
            )
            + ". Use `self.log_dict` for a flat one."
        )
    if not isinstance(value, numbers.Number | Metric | Tensor):
        raise ValueError(
            f"`self.log({name}, {value})` was called, but `{type(value).__name__}` values cannot "
            "be logged. Log a number, a tensor with one element or a torchmetrics.Metric."
        )
    if isinstance(value, Tensor):
        single(name, value)


def single(name: str, value: Tensor) -> Tensor:
    """Return the tensor without its dimensions of size 1.

    Raises:
        ValueError: It has more than one element.
    """
    if value.numel() != 1:
        raise ValueError(
            f"`self.log({name}, {value})` was called, but the tensor must have a single element. "
            f"You can try doing `self.log({name}, {value}.mean())`"
        )
    return value.squeeze()


def number(value: Any, device: torch.device) -> Tensor:
    """Return a number of Python's as the tensor that is gathered."""
    return torch.tensor(value, device=device, dtype=default_dtype())


def samples_in(batch: Any) -> int:
    """Return the batch's size as Lightning finds it: of its tensors' first dimension.

    Raises:
        MisconfigurationException: There is no tensor in it.
    """
    if type(batch) in (tuple, list) and batch:  # the usual case, ten times as fast
        sizes = {len(t) if type(t) is Tensor and t.ndim else -1 for t in batch}
        if len(sizes) == 1 and -1 not in sizes:
            return int(sizes.pop())
    return extract_batch_size(batch)
