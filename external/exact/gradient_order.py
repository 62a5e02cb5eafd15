"""The order in which processes add up their gradients: the same in every step of every attempt.

Floating-point sums depend on their order. DDP reduces gradients in buckets, and lays these out anew
after the first step of a process, as the gradients came; so the first step of a resume, and it
alone, would add in another order than the same step of an uninterrupted training. With
`find_unused_parameters` the first layout stays. Two numbers have one sum: two processes need
nothing.
"""

import warnings

from lightning.fabric.strategies.ddp import DDPStrategy as FabricDDPStrategy
from lightning.pytorch import Trainer
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.utilities import rank_zero_warn


def keep_buckets(trainer: Trainer) -> None:
    """Let three or more processes keep the first layout; before the strategy is set up."""
    keep_layout(trainer.strategy, trainer.world_size)


def keep_layout(strategy: object, world_size: int) -> None:
    """As `keep_buckets`, for a strategy of Lightning's Trainer or of Fabric."""
    if not isinstance(strategy, DDPStrategy | FabricDDPStrategy) or world_size < 3:
        return
    chosen = strategy._ddp_kwargs
    if chosen.get("find_unused_parameters") is False or chosen.get("static_graph"):
        rank_zero_warn(
            f"DDPStrategy({', '.join(f'{name}={value}' for name, value in chosen.items())}) adds "
            "gradients in another order after its first step: with three or more processes a "
            "resume differs in the last bits. Leave find_unused_parameters away to be exact."
        )
        return
    chosen["find_unused_parameters"] = True
    warnings.filterwarnings("ignore", "find_unused_parameters=True was specified")
