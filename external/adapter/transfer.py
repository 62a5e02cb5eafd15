"""A batch's way to the device: converted, then through the three transfer hooks."""

from collections.abc import Callable
from typing import Any

import torch
from lightning.fabric.utilities import move_data_to_device
from lightning.pytorch import LightningDataModule, LightningModule
from lightning.pytorch.utilities.model_helpers import is_overridden

from .hook_calls import HookCalls
from .precision import LeanPrecision

Transfer = Callable[[Any, int], Any]
"""Takes a batch and the index of its loader."""

_HOOKS = ("on_before_batch_transfer", "transfer_batch_to_device", "on_after_batch_transfer")


def transfer_to(
    device: torch.device,
    *,
    module: LightningModule,
    datamodule: LightningDataModule | None,
    precision: LeanPrecision,
    calls: HookCalls,
) -> Transfer:
    """Return what takes a batch to `device`; only hooks that somebody overrides are called.

    The data module's hook wins where the module has one, too, as in Lightning.
    """
    before, move, after = (_hook(name, module, datamodule, calls) for name in _HOOKS)
    convert = precision.plugin.convert_input if precision.converts else None
    is_cpu = device.type == "cpu"

    def default_move(batch: Any) -> Any:
        if type(batch) is not list and type(batch) is not tuple:
            return move_data_to_device(batch, device)
        is_there = is_cpu
        for each in batch:
            if type(each) is not torch.Tensor:
                return move_data_to_device(batch, device)
            is_there = is_there and each.is_cpu
        if is_there:
            return batch  # what `to` would return
        return type(batch)([each.to(device, non_blocking=not is_cpu) for each in batch])

    def transfer(batch: Any, dataloader_idx: int) -> Any:
        if convert is not None:
            batch = convert(batch)
        if before is not None:
            batch = before(batch, dataloader_idx)
        batch = default_move(batch) if move is None else move(batch, device, dataloader_idx)
        if after is not None:
            batch = after(batch, dataloader_idx)
        return batch

    return transfer


def _hook(
    name: str, module: LightningModule, datamodule: LightningDataModule | None, calls: HookCalls
) -> Callable[..., Any] | None:
    if datamodule is not None and is_overridden(name, datamodule):
        return getattr(datamodule, name)  # type: ignore[no-any-return]
    if is_overridden(name, module):
        return calls.named(name, getattr(module, name))
    return None
