"""What is left of an epoch that another number of ranks has begun, divided among those of now.

Each sample of it comes once; what cannot be divided evenly is repeated, or left out where the
sampler does that. In a checkpoint, of an epoch that was divided anew:

    {"order": {…}, "before": 96, "batches": 7}

`order` is that of the ranks that began it (`shared_order`), the first `before` samples of which
are done, and `batches` the number into which each rank's part of the rest is cut.
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from . import shared_order
from .shared_order import Division


@dataclass(frozen=True)
class RestOfEpoch:
    """This rank's `batches` of indices, and what describes them in a checkpoint."""

    batches: list[list[int]]
    described: dict[str, Any]


def is_divided_anew(node: dict[str, Any], loader: Any) -> bool:
    """Return whether `loader` divides an epoch among another number of ranks than began it.

    Args:
        node: Where an iterator stood, see `loader_iterators.describe`.
        loader: As it is now.
    """
    if node.get("rest") is not None:
        return True
    divided, order = shared_order.division(loader), node.get("order")
    return divided is not None and order is not None and bool(divided.ranks != order["ranks"])


def rest_of_epoch(
    node: dict[str, Any],
    loader: Any,
    done: int,
    number_of_batches: Callable[[int], int] = lambda least: least,
) -> tuple[RestOfEpoch, int] | None:
    """Return what is left for this rank, and how many batches of that are done.

    Args:
        node: Where an iterator stood.
        loader: As it is now.
        done: Batches that were trained on of that iterator.
        number_of_batches: Given the least number of batches into which a rank's part can be cut,
            returns into how many it is.

    Returns:
        None if the order cannot be drawn again.
    """
    divided, last, rest = shared_order.division(loader), node.get("order"), node.get("rest")
    if divided is None or last is None or (rest is None and last["kind"] is None):
        return None
    order = rest["order"] if rest else {**last, **_as_it_began(node)}
    before = rest["before"] if rest else 0
    is_same = rest is not None and divided.ranks == last["ranks"]
    if not is_same:
        before, done = before + done * last["together"], 0
    samples = shared_order.draw(order, loader)
    if samples is None:
        return None
    own = _part(samples[before:], divided)
    count = rest["batches"] if rest and is_same else number_of_batches(_least(own, divided))
    described = {"order": order, "before": before, "batches": count}
    return RestOfEpoch(_cut(own, divided, count), described), done


def _as_it_began(node: dict[str, Any]) -> dict[str, Any]:
    if node["order"]["kind"] not in ("random", "own"):
        return {}
    is_known = node["first"] is not None
    drawn = node["first"] if is_known else node["begun"]
    return {"drawn": drawn, "is_fresh": not is_known and not node["history"]}


def _part(rest: list[int], divided: Division) -> list[int]:
    """Return every rank's same number of samples of the rest, this rank's."""
    excess = len(rest) % divided.ranks
    if excess and divided.leaves_out:
        rest = rest[:-excess]
    elif excess:
        rest = rest + list(itertools.islice(itertools.cycle(rest), divided.ranks - excess))
    return rest[divided.rank :: divided.ranks]


def _least(own: list[int], divided: Division) -> int:
    return len(own) // divided.size if divided.drop_last else -(-len(own) // divided.size)


def _cut(own: list[int], divided: Division, count: int) -> list[list[int]]:
    """Return `count` batches: full ones, or as even ones as can be if those are fewer."""
    if count == 0:
        return []
    if count == _least(own, divided):
        size = divided.size
        return [own[start : start + size] for start in range(0, count * size, size)]
    own = own + list(itertools.islice(itertools.cycle(own), max(0, count - len(own))))
    bounds = [len(own) * number // count for number in range(count + 1)]
    return [own[start:end] for start, end in itertools.pairwise(bounds)]
