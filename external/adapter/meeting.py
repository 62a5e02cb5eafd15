"""All processes meet again after an error, to save what each of them has only a part of.

Where all of them failed, and in the same step, they can: an error in the data, or a loss that is
no number, comes to all alike. Where one failed alone the others still wait for it in some
collective, from where nobody gets them; then none is met, and nothing is saved.
"""

import datetime
from typing import Any

import torch.distributed as dist

SECONDS = 10.0
"""How long the first one waits for the others."""
_WAITED_FOR = "curitorch/after-an-error"


class Meeting:
    """All processes, in a group of their own: the one of the training was left anywhere."""

    def __init__(self, group: Any) -> None:
        self.group = group

    def gathered(self, own: Any) -> list[Any]:
        """Return what each process has, in the order of ranks."""
        parts: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(parts, own, group=self.group)
        return parts


def meet(step: int | None) -> Meeting | None:
    """Return where all processes are that come with the same `step`; None if not all do.

    Args:
        step: Whole optimizer steps that this process has the state of; None: no whole one.
    """
    store: Any = dist.distributed_c10d._get_default_store()
    ranks, patience = dist.get_world_size(), datetime.timedelta(seconds=SECONDS)
    names = [f"{_WAITED_FOR}/{rank}" for rank in range(ranks)]
    try:
        store.set(names[dist.get_rank()], str(step))
        store.wait(names, patience)
        steps = {store.get(name).decode() for name in names}
    except RuntimeError:  # nobody came, or the process that keeps the store is gone
        return None
    if len(steps) > 1 or step is None:
        return None
    return Meeting(dist.new_group(timeout=patience, backend="gloo"))
