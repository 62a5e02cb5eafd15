"""The strategy "fsdp2": parameters, gradients and optimizer states lie in parts on all processes.

Each block of a module is gathered when its forward or backward pass needs it
(torch.distributed.fsdp.fully_shard). Blocks are what stands in a ModuleList, ModuleDict or
Sequential and has parameters; the rest is one more.
"""

from collections.abc import Iterator

import torch
from lightning.fabric.strategies.model_parallel import ModelParallelStrategy
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard

from ..refused import Refused

_CONTAINERS = (torch.nn.ModuleList, torch.nn.ModuleDict, torch.nn.Sequential)


def fsdp2(processes: int) -> ModelParallelStrategy:
    """Return Fabric's strategy that shards over all of `processes`, before it is launched."""
    return ModelParallelStrategy(
        parallelize_fn=shard, data_parallel_size=processes, tensor_parallel_size=1
    )


def shard(module: torch.nn.Module, mesh: DeviceMesh) -> torch.nn.Module:
    """Shard `module` in place over the data-parallel processes of `mesh`; returns it.

    Raises:
        Refused: A part of it is sharded already.
    """
    over = mesh["data_parallel"] if mesh.ndim > 1 else mesh
    for name, each in module.named_modules():
        if isinstance(each, FSDPModule):
            raise Refused(
                f"'{name}' is sharded by fully_shard already, in configure_model perhaps. Leave it "
                "whole: strategy='fsdp2' shards what stands in containers, once a checkpoint is "
                "loaded."
            )
    for block in [*blocks(module)]:
        fully_shard(block, mesh=over)
    fully_shard(module, mesh=over)
    return module


def blocks(module: torch.nn.Module) -> Iterator[torch.nn.Module]:
    """Yield what stands in containers and has parameters, innermost containers first."""
    for child in module.children():
        yield from blocks(child)
        # a container's own forward is not always called, its members' are
        is_block = isinstance(module, _CONTAINERS) and not isinstance(child, _CONTAINERS)
        if is_block and next(child.parameters(), None) is not None:
            yield child
