"""A DataLoader that seeds the generators before each of its batches is worked on."""

from collections.abc import Iterator
from typing import Any

from torch.utils.data import DataLoader, Subset, TensorDataset, default_collate

from .own_order import OwnOrder
from .randomness import SeededDataset, derive_seed, seed_generators
from .sampling import GlobalBatchSampler

_KEPT = (
    *("num_workers", "collate_fn", "pin_memory", "timeout", "worker_init_fn"),
    *("multiprocessing_context", "generator", "prefetch_factor", "persistent_workers"),
    *("pin_memory_device", "in_order"),
)
"""What is taken over from the user's loader."""


class SeededLoader(DataLoader[Any]):
    """A user's data set, workers and collation over batches that know their place.

    What is done with a batch (transfer hooks, dropout) thus depends on where it stands alone,
    whoever loaded it and whatever ran before.

    Args:
        loader: The user's.
        batches: What to load.
    """

    def __init__(self, loader: DataLoader[Any], batches: GlobalBatchSampler | OwnOrder) -> None:
        kept = {name: getattr(loader, name) for name in _KEPT if hasattr(loader, name)}
        dataset = SeededDataset(loader.dataset, draws=_may_draw(loader))
        super().__init__(dataset, batch_sampler=batches, **kept)
        self.batches = batches

    def __iter__(self) -> Any:
        epoch, done = self.batches.position()
        # Made now, not at the first batch: workers begin to load ahead.
        loaded = super().__iter__()
        return self._seeded(loaded, epoch, done)

    def _seeded(self, loaded: Iterator[Any], epoch: int, done: int) -> Iterator[Any]:
        batches, number = self.batches, done - 1
        for number, batch in enumerate(loaded, start=done):
            if isinstance(batches, OwnOrder):
                batches.forget_before(number)
            self._seed("step", epoch, number)
            yield batch
        self._seed("last step", epoch, number)  # asked before it where the length is not known

    def _seed(self, role: str, *place: int) -> None:
        role = f"{self.batches.role}{role}"
        seed_generators(derive_seed(self.batches.seed, role, *place, self.batches.rank))

    def state_at(self, epoch: int, done: int, *, over: bool) -> dict[str, Any] | None:
        """Return what the order needs to be entered there, or None if it needs nothing."""
        if not isinstance(self.batches, OwnOrder):
            return None
        return self.batches.state_at(epoch, done, over=over)


def _may_draw(loader: DataLoader[Any]) -> bool:
    """Return whether loading a batch may draw random numbers: tensors that are stacked do not."""
    dataset = loader.dataset
    while type(dataset) is Subset:
        dataset = dataset.dataset
    return not (type(dataset) is TensorDataset and loader.collate_fn is default_collate)
