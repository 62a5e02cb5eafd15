"""Where the iterator of a torch `DataLoader` stands, and making a fresh one stand there.

The order of an epoch comes from generators' states when its iterator was made and when its sampler
was first asked; both are kept. Without workers the indices of the batches before are skipped
without loading them. With workers the batches are loaded again and thrown away, as what a worker
draws for a batch depends on those before; those of workers that stay, in all epochs before.
"""

import inspect
import itertools
import random
import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch.utils.data import DataLoader, IterableDataset
from torch.utils.data.dataloader import _BaseDataLoaderIter

from . import shared_order
from .epoch_order import RANKS, length_of, order_of, set_order
from .fetches import Fetches
from .rest_of_epoch import RestOfEpoch, is_divided_anew, rest_of_epoch
from .worker_leash import with_workers_on_leash

MARK = "_curitorch"


class Frameworks:
    """`have_loops` that fetch batches before they train on those before: each fetch is noted."""

    have_loops = False
    rebuild: tuple[Any, Callable[[], Any]] | None = None
    """A loader, and what gives its next iterator in place of itself."""
    number_of_batches: Callable[[int], int] = staticmethod(lambda least: least)
    """See `rest_of_epoch`."""


FRAMEWORKS = Frameworks()


class Position:
    """What is known of one iterator: its loader, and the generators as it began."""

    __slots__ = ("begun", "epoch", "fetches", "first", "history", "is_rebuilt", "loader", "rest")

    def __init__(self, loader: Any, begun: dict[str, Any], history: list[Any], epoch: Any) -> None:
        self.loader = loader
        self.begun = begun
        self.first: dict[str, Any] | None = None
        self.history = history
        self.is_rebuilt = False
        self.rest: dict[str, Any] | None = None  # of an epoch that another number of ranks began
        self.epoch = epoch
        self.fetches: Fetches | None = None


def is_one(it: Any) -> bool:
    """Return whether `it` is an iterator of a loader that `begin` has made."""
    return isinstance(it, _BaseDataLoaderIter) and hasattr(it, MARK)


def begin(loader: Any, make: Any) -> Any:
    """Return a new iterator of `loader` by calling `make`, with its position known."""
    if FRAMEWORKS.rebuild is not None and FRAMEWORKS.rebuild[0] is loader:
        (_, rebuilt), FRAMEWORKS.rebuild = FRAMEWORKS.rebuild, None
        return rebuilt()
    begun = order_of(loader)
    history: list[Any] = []
    old = getattr(loader, "_iterator", None)
    if old is not None and hasattr(old, MARK):  # workers that stay
        position = getattr(old, MARK)
        history = [*position.history, [position.begun, old._num_yielded]]
    epoch = shared_order.epoch_of(loader)
    it = with_workers_on_leash(make)
    position = Position(loader, begun, history, epoch)
    setattr(it, MARK, position)
    if loader.num_workers == 0:
        ask = it._next_index

        def first_index() -> Any:
            position.first = order_of(loader)
            del it._next_index
            return ask()

        it._next_index = first_index
        if FRAMEWORKS.have_loops:
            position.fetches = Fetches(it)
        elif isinstance(loader.dataset, IterableDataset):
            it._next_data = _watched(it, it._next_data, type(loader.dataset))
    if FRAMEWORKS.have_loops:
        setattr(loader, MARK, weakref.ref(it))
    return it


def newest_of(loader: Any) -> Any:
    """Return the iterator that a loader of a framework has made last, if it is still there."""
    made = getattr(loader, MARK, None)
    return None if made is None else made()


def on_finding(where: str, what: str) -> None:
    """Called with what cannot be exact; the session sets it."""


def _watched(it: Any, fetch: Any, kind: type) -> Any:
    """Return `fetch`, which finds out whether it draws from the global generators each time."""

    def fetch_watched() -> Any:
        before = (torch.get_rng_state(), random.getstate())
        begun = it._num_yielded > 0
        item = fetch()
        if begun and not (
            random.getstate() == before[1] and torch.equal(torch.get_rng_state(), before[0])
        ):
            del it._next_data
            on_finding(
                inspect.getsourcefile(kind) or "",
                f"{kind.__name__} draws from the global random generators for each sample; give "
                "it a generator of its own, or workers",
            )
        return item

    return fetch_watched


def describe(it: Any) -> dict[str, Any]:
    """Return where `it` stands, as plain data."""
    position: Position = getattr(it, MARK)
    return {
        "begun": position.begun,
        "first": position.first,
        "history": position.history,
        "order": shared_order.describe(position.loader, position.epoch),
        "rest": position.rest,
        **noted(it),
    }


def noted(it: Any) -> dict[str, Any]:
    """Return what of `describe` changes with each batch, for next to nothing."""
    fetches = getattr(it, MARK).fetches
    return {
        "yielded": it._num_yielded,
        "fetches": [] if fetches is None else list(fetches.before),
    }


def loader_of(fresh: Any) -> Any:
    """Return the loader of an iterator, or the loader itself."""
    return fresh if isinstance(fresh, DataLoader) else getattr(fresh, MARK).loader


def rebuild(node: dict[str, Any], fresh: Any, back: int) -> Any:
    """Return an iterator that stands where `node` says, less the last `back` batches."""
    loader = loader_of(fresh)
    count = max(0, node["yielded"] - back)
    old = loader._iterator if loader._iterator is not None else fresh
    if hasattr(old, "_shutdown_workers"):  # begun in this process, in another state
        old._shutdown_workers()
    if loader.persistent_workers and loader.num_workers:
        loader._iterator = None
        for begun, yielded in node["history"]:
            set_order(loader, begun)
            passed = iter(loader)
            for _ in range(yielded):
                next(passed)
            for _ in passed:  # what was under way when the script left the loop
                pass
            getattr(passed, MARK).begun = begun
            passed._num_yielded = yielded
    set_order(loader, node["begun"])
    if is_divided_anew(node, loader):
        found = rest_of_epoch(node, loader, count, FRAMEWORKS.number_of_batches)
        if found is not None:
            return _over_rest(found[0], loader, found[1])
    _check_length(loader, node["begun"])
    if RANKS.before:
        on_finding(
            "",
            f"the order of a {type(loader.sampler).__name__} cannot be divided anew among another "
            "number of ranks; use a DistributedSampler",
        )
    it = iter(loader)
    if node["first"] is not None:
        set_order(loader, node["first"])
    _pass_over(it, loader, count)
    if loader.num_workers == 0 and count == 0 and node["first"] is not None:
        _begin_order(it)
    getattr(it, MARK).is_rebuilt = True
    return it


def _begin_order(it: Any) -> None:
    """Let the order be drawn now: other loaders of the loop set the generators before a batch."""
    indices = it._next_index()
    it._sampler_iter = itertools.chain([indices], it._sampler_iter)
    stream = getattr(it._dataset_fetcher, "dataset_iter", None)
    if stream is not None:  # its first sample, for it may shuffle as it begins
        first = list(itertools.islice(stream, 1))
        it._dataset_fetcher.dataset_iter = itertools.chain(first, stream)


def _over_rest(rest: RestOfEpoch, loader: Any, done: int) -> Any:
    """Return an iterator over what is left of an epoch that other ranks have begun."""
    batches = loader.batch_sampler
    loader.__dict__["batch_sampler"] = rest.batches  # a DataLoader does not let it be set
    try:
        it = iter(loader)
    finally:
        loader.__dict__["batch_sampler"] = batches
    it._index_sampler = batches  # of the next epoch, if its workers stay
    _pass_over(it, loader, done)
    position: Position = getattr(it, MARK)
    position.rest, position.is_rebuilt = rest.described, True
    position.epoch = shared_order.epoch_of(loader)
    return it


def _pass_over(it: Any, loader: Any, count: int) -> None:
    """Let an iterator stand behind its first batches."""
    if loader.num_workers == 0 and not isinstance(loader.dataset, IterableDataset):
        for _ in range(count):
            it._next_index()
        it._num_yielded = count
    else:
        for _ in range(count):
            next(it)


def rebuild_workers(node: dict[str, Any], loader: Any) -> None:
    """Make the workers of `loader` that stay what they were after the epochs of `node`."""
    there = loader._iterator
    if there is None or not getattr(there, MARK).is_rebuilt:
        it = rebuild(node, loader, 0)
        for _ in it:
            pass
        it._num_yielded = node["yielded"]


def _check_length(loader: Any, order: dict[str, Any]) -> None:
    """Note data that is not yet what it was when the epoch began."""
    before, now = order.get("length"), length_of(loader)
    if before is not None and before != now and RANKS.before is None:
        kind = type(loader.dataset)
        on_finding(
            inspect.getsourcefile(kind) or "",
            f"{kind.__name__} gave {before} samples in this epoch, and gives {now} when its loader "
            "is made again: change it by numbers or texts that it keeps, or make it anew",
        )
