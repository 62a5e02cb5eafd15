"""Loss functions to pick by name: those of torch.nn.functional that take outputs and targets."""

from collections.abc import Callable
from typing import Literal, get_args

import torch
from torch import Tensor

from ..refused import Refused

LossName = Literal[
    "binary_cross_entropy",
    "binary_cross_entropy_with_logits",
    "cross_entropy",
    "hinge_embedding_loss",
    "huber_loss",
    "l1_loss",
    "mse_loss",
    "multilabel_soft_margin_loss",
    "nll_loss",
    "smooth_l1_loss",
    "soft_margin_loss",
]


def picked_loss(name: str) -> Callable[[Tensor, Tensor], Tensor]:
    """Return the loss of that name; it gives the mean over the batch.

    Raises:
        Refused: There is none of that name.
    """
    if name not in get_args(LossName):
        raise Refused(
            f"loss is {name!r}, expected one of {', '.join(get_args(LossName))}. For another one "
            "define the method loss(self, outputs, targets)."
        )
    found: Callable[[Tensor, Tensor], Tensor] = getattr(torch.nn.functional, name)
    return found
