"""The buckets in which a DistributedDataParallel adds gradients up: what they are, and again.

It lays them out anew after the first step of a process, as the gradients came; three or more ranks
then add the same numbers in another order. A process that goes on gets the layout before its first
step, by a backward pass of zeros in the order of the saved one. A layout as plain data:

    {"ranks": 3, "order": [5, 4, 1, 0, 3, 2], "buckets": "5 4 1 0, 3 2"}

`order` are places among the parameters that get gradients; `buckets` is None before they are laid
out. Two numbers have one sum: with two ranks there is nothing to know.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch.nn.parallel import DistributedDataParallel


class OtherLayout(ValueError):
    """Gradients cannot be laid out as they were; the message says how they are."""


def may_change(ddp: DistributedDataParallel) -> bool:
    """Return whether the layout is another after the first step, and matters."""
    return ddp.process_group.size() > 2 and not (
        ddp.find_unused_parameters and not ddp.static_graph
    )


def can_be_kept(ddp: DistributedDataParallel) -> bool:
    """Return whether `put_layout` can bring a changed layout back."""
    return not (ddp.static_graph or ddp.__dict__.get("_use_python_reducer"))


def layout_of(ddp: DistributedDataParallel) -> dict[str, Any] | None:
    """Return the layout, between two steps; None if it is that of the beginning or cannot be known.

    Nothing is exchanged with other ranks.
    """
    if not may_change(ddp) or not can_be_kept(ddp):
        return None
    buckets, arrived = _known(ddp)
    if not (buckets or arrived):
        return None
    order = [int(word) for word in (buckets or arrived or "").replace(",", " ").split()]
    return {"ranks": ddp.process_group.size(), "order": order, "buckets": buckets}


def put_layout(ddp: DistributedDataParallel, layout: dict[str, Any]) -> None:
    """Lay out the gradients of a new process as they were; all ranks call it, before a step.

    Parameters, their gradients and buffers stay what they are.

    Raises:
        OtherLayout: They are laid out in another way now.
    """
    own: Any = ddp  # much of it has no types
    parameters = own._build_params_for_reducer()[0]
    if ddp.process_group.size() != layout["ranks"]:
        return  # nothing is as it was, to the last bit
    if sorted(layout["order"]) != list(range(len(parameters))):
        raise OtherLayout(f"{len(parameters)} gradients, saved were {len(layout['order'])}")
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))  # or the buckets could not be used later
        for each in parameters:
            stack.enter_context(_left_alone(each))
        ddp.reducer.prepare_for_forward()
        ddp.reducer.prepare_for_backward([])
        for place in layout["order"]:
            parameters[place].backward(torch.zeros_like(parameters[place]))
        ddp.reducer._rebuild_buckets()
        ddp._has_rebuilt_buckets = True
    buckets = _known(ddp)[0]
    if layout["buckets"] not in (None, buckets):
        raise OtherLayout(f"gradients in buckets {buckets}, saved were {layout['buckets']}")


def _known(ddp: Any) -> tuple[str | None, str | None]:
    """Return the buckets after the first step, and the order in which gradients came last."""
    ddp.logger.set_runtime_stats_and_log()  # else what it knew when the last forward began
    known = ddp._get_ddp_logging_data()
    buckets = known.get("rebuilt_per_bucket_param_indices")
    return buckets, known.get("prev_iteration_grad_ready_order_indices")


@contextmanager
def _left_alone(parameter: torch.Tensor) -> Iterator[None]:
    """Keep a parameter's gradient, and call none of the user's hooks."""
    gradient, parameter.grad = parameter.grad, None
    hooks = [
        each
        for each in (parameter._backward_hooks, parameter._post_accumulate_grad_hooks)
        if each is not None
    ]
    kept = [dict(each) for each in hooks]
    for each in hooks:
        each.clear()
    try:
        yield
    finally:
        parameter.grad = gradient
        for each, before in zip(hooks, kept, strict=True):
            each.update(before)
