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


class NotMet(RuntimeError):
    """Not all processes came; the message says why nothing was saved, and what counts."""


def meet(step: int) -> Meeting:
    """Return where all processes are, which come with the same `step`.

    Args:
        step: Whole optimizer steps that this process has the state of; -1: no whole one.

    Raises:
        NotMet: Not all of them do.
    """
    store: Any = dist.distributed_c10d._get_default_store()
    own, patience = dist.get_rank(), datetime.timedelta(seconds=SECONDS)
    names: list[str] = []
    try:
        times = store.add(f"{_WAITED_FOR}/times-of-{own}", 1)  # or else they find what was left
        names = [f"{_WAITED_FOR}/{times}/{rank}" for rank in range(dist.get_world_size())]
        store.set(names[own], str(step))
        store.wait(names, patience)
        steps = [int(store.get(name)) for name in names]
    except RuntimeError as error:
        raise NotMet(_sentence(_absent(store, names))) from error
    if step < 0 or len({*steps}) > 1:
        raise NotMet(_sentence(f"theirs are of steps {steps}, -1 of no whole one"))
    return Meeting(dist.new_group(timeout=patience, backend="gloo"))


def _absent(store: Any, names: list[str]) -> str:
    gone = "the process through which they find each other is gone"
    if not names:
        return gone
    try:
        absent = [rank for rank, name in enumerate(names) if not store.check([name])]
    except RuntimeError:
        return gone
    return f"{f'ranks {absent}' if absent else 'some'} did not come within {SECONDS:.0f} seconds"


def _sentence(reason: str) -> str:
    return (
        f"each process has only parts of it, and {reason}. The checkpoints before are as they "
        "were: a resume goes on from the newest."
    )
