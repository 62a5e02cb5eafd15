"""The order of samples that several ranks share in an epoch, as plain data, and drawing it again.

Rank r of W takes r, r + W, … of it (`DistributedSampler`), or every W-th batch (accelerate): after
each batch of every rank, the first `together` samples more of it are done. An order of three ranks:

    {"kind": "distributed", "ranks": 3, "together": 12, "seed": 0, "shuffle": true, "epoch": 2}
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.data import BatchSampler, IterableDataset, RandomSampler, SequentialSampler
from torch.utils.data.distributed import DistributedSampler

from . import generators
from .epoch_order import owned_generators, set_order


@dataclass(frozen=True)
class Division:
    """How a loader divides its order: this is rank `rank` of `ranks`, each has batches of `size`.

    `sampler` draws the order, or this rank's part of it; None where it is not known how.
    """

    ranks: int
    rank: int
    size: int
    drop_last: bool
    sampler: Any
    leaves_out: bool = False
    """What cannot be divided evenly is left out, not repeated."""


def division(loader: Any) -> Division | None:
    """Return how `loader` divides an order of samples; None if it has none."""
    batches, ranks, rank, parts = loader.batch_sampler, 1, 0, 1
    if batches is None or isinstance(loader.dataset, IterableDataset):
        return None
    if hasattr(batches, "process_index") and hasattr(batches, "batch_sampler"):  # accelerate's
        ranks, rank = batches.num_processes, batches.process_index
        parts = ranks if batches.split_batches else 1
        batches = batches.batch_sampler
    if type(batches) is not BatchSampler:
        return None
    sampler: Any = batches.sampler
    leaves_out = batches.drop_last and ranks > 1
    if isinstance(sampler, DistributedSampler):
        ranks, rank, leaves_out = sampler.num_replicas, sampler.rank, sampler.drop_last
    size = batches.batch_size // parts
    return Division(ranks, rank, size, batches.drop_last, sampler, leaves_out)


def epoch_of(loader: Any) -> Any:
    """Return which epoch's order the sampler of `loader` draws next, if it says so."""
    divided = division(loader)
    return None if divided is None else getattr(divided.sampler, "epoch", None)


def describe(loader: Any, epoch: Any) -> dict[str, Any] | None:
    """Return the order of the epoch under way; None if there is none.

    Its `kind` is None if nobody can draw it again for other ranks.

    Args:
        loader: Whose.
        epoch: Of its sampler as the epoch began.
    """
    divided = division(loader)
    if divided is None:
        return None
    drawn = _drawn_by(divided, loader, epoch) or {"kind": None}
    return {**drawn, "ranks": divided.ranks, "together": divided.size * divided.ranks}


def _drawn_by(divided: Division, loader: Any, epoch: Any) -> dict[str, Any] | None:
    sampler: Any = divided.sampler
    if type(sampler) is DistributedSampler:
        names = ("seed", "shuffle", "epoch")
        return {"kind": "distributed", **{name: getattr(sampler, name) for name in names}}
    if isinstance(sampler, RandomSampler):
        if sampler.replacement or sampler.num_samples != len(loader.dataset):
            return None
        if hasattr(sampler, "initial_seed"):  # accelerate's
            return {"kind": "seeded", "seed": sampler.initial_seed + epoch}
        own = [id(each) for each in owned_generators(loader)]
        place = own.index(id(sampler.generator)) if id(sampler.generator) in own else None
        return {"kind": "random", "generator": place} if divided.ranks == 1 else None
    if type(sampler) is SequentialSampler:
        return {"kind": "sequential"}
    if divided.ranks > 1:  # each rank has drawn one for itself
        return None
    return {"kind": "own", "type": type(sampler).__qualname__}


def draw(order: dict[str, Any], loader: Any) -> list[int] | None:
    """Return the samples in a described order; None if `loader` has not the sampler that drew it.

    The global generators stay as they are; those of the loader are as if it had drawn the order.
    """
    kind, data = order["kind"], loader.dataset
    if kind == "sequential":
        return list(range(len(data)))
    if kind == "seeded":
        return list(RandomSampler(data, generator=torch.Generator().manual_seed(order["seed"])))
    if kind == "distributed":
        whole: DistributedSampler[Any] = DistributedSampler(
            data, 1, 0, shuffle=order["shuffle"], seed=order["seed"]
        )
        whole.set_epoch(order["epoch"])
        return list(whole)
    before = generators.take_cpu()
    try:
        set_order(loader, order["drawn"])
        if order["is_fresh"]:  # as a new iterator does first
            torch.empty((), dtype=torch.int64).random_(generator=loader.generator)
        sampler = _sampler_of(order, loader)
        return None if sampler is None else list(sampler)
    finally:
        generators.put(before)


def _sampler_of(order: dict[str, Any], loader: Any) -> Any:
    if order["kind"] == "random":
        generator, place = None, order["generator"]
        if place is not None:
            own = owned_generators(loader)
            generator = torch.Generator() if place >= len(own) else own[place]
            if place >= len(own):
                generator.set_state(order["drawn"]["own"][place])
        return RandomSampler(loader.dataset, generator=generator)
    divided = division(loader)
    sampler = None if divided is None else divided.sampler
    if isinstance(sampler, DistributedSampler):  # Lightning's, around the user's
        sampler = getattr(sampler.dataset, "_sampler", None)
    return sampler if type(sampler).__qualname__ == order["type"] else None
