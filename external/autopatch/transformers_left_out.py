"""What a transformers Trainer leaves out of its checkpoints, of one rank, as plain data.

Sums of logged losses, generators, where its loader stands, and the layout of its gradients.
"""

from typing import Any

from torch.nn.parallel import DistributedDataParallel

from ..exact.gradient_layout import layout_of
from . import generators, loader_iterators

_SUMS = ("_tr_loss", "_total_loss_scalar", "_globalstep_last_logged", "_initial_global_step")


def file_of(rank: int) -> str:
    """Return the name of the file in a checkpoint's folder."""
    return f"curitorch-{rank}.pt"


def take(trainer: Any, loader: Any) -> dict[str, Any]:
    """Return it, between two steps; `loader` is torch's own that the Trainer iterates over."""
    it, model = loader_iterators.newest_of(loader), trainer.model_wrapped
    return {
        "sums": {n: _plain(getattr(trainer, n)) for n in _SUMS if hasattr(trainer, n)},
        "rng": generators.take(),
        "position": None if it is None else loader_iterators.describe(it),
        "layout": layout_of(model) if isinstance(model, DistributedDataParallel) else None,
    }


def put_sums(trainer: Any, saved: dict[str, Any]) -> None:
    """Give a Trainer, which has set its own to zero, its sums."""
    for name, value in saved["sums"].items():
        old = getattr(trainer, name)
        setattr(trainer, name, old.new_tensor(value) if hasattr(old, "new_tensor") else value)


def _plain(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else value
