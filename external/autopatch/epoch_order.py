"""What the order of a loader's epoch depends on: generators, and what its data says of itself."""

from typing import Any

import torch
from torch.utils.data import IterableDataset

from . import generators


class RanksBefore:
    """`before` is how many ranks trained when what is restored was saved, if not as many as now."""

    before: int | None = None


RANKS = RanksBefore()


def owned_generators(loader: Any) -> list[torch.Generator]:
    """Return those that a loader and its samplers were given."""
    batches = loader.batch_sampler
    samplers = (loader.sampler, batches, getattr(batches, "sampler", None))
    found = [loader.generator, *(getattr(each, "generator", None) for each in samplers)]
    unique = {id(each): each for each in found if isinstance(each, torch.Generator)}
    return list(unique.values())


def order_of(loader: Any) -> dict[str, Any]:
    """Return all that the order of an epoch may depend on."""
    return {
        "rng": generators.take_cpu(),
        "own": [each.get_state() for each in owned_generators(loader)],
        "epoch": getattr(loader.sampler, "epoch", None),
        "data": _counters(loader.dataset),
        "length": length_of(loader),
    }


def length_of(loader: Any) -> int | None:
    """Return how many samples an epoch has, if its data says so."""
    try:
        return None if isinstance(loader.dataset, IterableDataset) else len(loader.sampler)
    except TypeError:
        return None


def _counters(dataset: Any) -> dict[str, Any]:
    """Return the numbers that data may keep of itself, such as its epoch or its length."""
    own = getattr(dataset, "__dict__", {})
    return {name: each for name, each in own.items() if type(each) in (bool, int, float, str)}


def set_order(loader: Any, order: dict[str, Any]) -> None:
    """Let the next epoch of `loader` have the order that `order_of` returned."""
    generators.put(order["rng"])
    for each, state in zip(owned_generators(loader), order["own"], strict=False):
        each.set_state(state)
    if RANKS.before is None or isinstance(loader.dataset, IterableDataset):
        for name, value in order["data"].items():
            setattr(loader.dataset, name, value)
    if order["epoch"] is not None and hasattr(loader.sampler, "epoch"):
        loader.sampler.epoch = order["epoch"]
