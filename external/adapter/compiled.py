"""The LightningModule that was given to a fit, also from the hands of `torch.compile`."""

from typing import Any

from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.compile import from_compiled
from torch._dynamo import OptimizedModule

from ..refused import Refused


def uncompiled(model: Any) -> LightningModule:
    """Return the module itself; one from `torch.compile` computes its steps compiled from here on.

    Raises:
        Refused: It is no LightningModule of `lightning.pytorch`.
    """
    if isinstance(model, OptimizedModule):
        model = from_compiled(model)
    if isinstance(model, LightningModule):
        return model
    what = f"{type(model).__module__}.{type(model).__qualname__}"
    remedy = "Derive it from lightning.pytorch.LightningModule."
    if any(each.__module__.split(".")[0] == "pytorch_lightning" for each in type(model).__mro__):
        remedy = (
            "The package 'pytorch_lightning' does not mix with 'lightning.pytorch': import "
            "lightning.pytorch in its module."
        )
    raise Refused(f"fit() got a {what}, expected a LightningModule. {remedy}")
