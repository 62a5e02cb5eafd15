"""Strategies that write checkpoints in a way of their own, which no plugin and no store sees."""

from .refused import Refused

OWN = {
    "DeepSpeedStrategy": "FSDPStrategy(state_dict_type='full')",
    "FSDPStrategy": "FSDPStrategy(state_dict_type='full')",
    "ModelParallelStrategy": "ModelParallelStrategy(save_distributed_checkpoint=False)",
}
"""Lightning's strategies of that kind, and what to use instead."""


def refuse_own_checkpoints(strategy: object) -> None:
    """Refuse a strategy whose ranks each write a part of a checkpoint.

    Such parts are no file that can be verified and committed as one. FSDP and ModelParallel
    gather a whole one when they are told to.

    Raises:
        Refused: It is such a strategy.
    """
    for kind in type(strategy).__mro__:
        remedy = OWN.get(kind.__name__)
        whole = (
            getattr(strategy, "_state_dict_type", None) == "full"
            or getattr(strategy, "_save_distributed_checkpoint", None) is False
        )
        if remedy is not None and not whole:
            raise Refused(
                f"{kind.__name__} lets every process write its own part of a checkpoint, which "
                f"curitorch cannot keep as one whole. Use {remedy} instead."
            )
