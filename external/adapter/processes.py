"""Which of Fabric's strategies starts the processes of a lean fit and divides its module."""

from typing import Any

from ..refused import Refused
from .world import tree_strategy


def processes(options: dict[str, Any], *, is_world: bool) -> dict[str, Any]:
    """Return Fabric's options with the strategy that the user means.

    Args:
        options: Of Fabric; "fsdp2" is a strategy of ours.
        is_world: Whether it is exact="world".

    Raises:
        Refused: The strategy cannot do what was asked for.
    """
    strategy, devices, nodes = (options[name] for name in ("strategy", "devices", "num_nodes"))
    count = devices * nodes if isinstance(devices, int) and isinstance(nodes, int) else None
    if is_world:
        return {**options, "strategy": tree_strategy(strategy, count)}
    if strategy != "fsdp2":
        return options
    if count is None or count < 1:
        raise Refused(
            f"strategy='fsdp2' with devices={devices!r}: it has to know the number of processes. "
            "Give a number, or start them by torchrun."
        )
    if count == 1:
        return {**options, "strategy": "auto"}
    from .fully_sharded import fsdp2  # imports much that nobody else needs

    return {**options, "strategy": fsdp2(count)}
