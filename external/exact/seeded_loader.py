"""A DataLoader that seeds the generators before each of its batches is worked on."""

from collections.abc import Iterator
from typing import Any

from torch.utils.data import DataLoader

from .own_order import OwnOrder
from .patient_workers import patient_workers
from .randomness import SeededDataset, derive_seed, derive_seeds, seed_generators
from .sampling import GlobalBatchSampler
from .tensor_batches import TensorBatches, as_it_is, stacks_tensors

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
        dataset = SeededDataset(loader.dataset)
        if stacks_tensors(loader):
            dataset, kept["collate_fn"] = TensorBatches(loader.dataset), as_it_is
        super().__init__(dataset, batch_sampler=batches, **kept)
        self.batches = batches

    def __iter__(self) -> Any:
        epoch, done = self.batches.position()
        # Made now, not at the first batch: workers begin to load ahead.
        with patient_workers(self):
            loaded = super().__iter__()
        return self._seeded(loaded, epoch, done)

    def _seeded(self, loaded: Iterator[Any], epoch: int, done: int) -> Iterator[Any]:
        batches, number = self.batches, done - 1
        seed, rank, role = batches.seed, batches.rank, batches.role
        seeds = derive_seeds(seed, f"{role}step", epoch, done, rank)
        forget_before = batches.forget_before if isinstance(batches, OwnOrder) else None
        for number, batch in enumerate(loaded, start=done):
            if forget_before is not None:
                forget_before(number)
            seed_generators(next(seeds))
            yield batch
        # Asked before the last step where the length is not known.
        seed_generators(derive_seed(seed, f"{role}last step", epoch, number, rank))

    def state_at(self, epoch: int, done: int, *, over: bool) -> dict[str, Any] | None:
        """Return what the order needs to be entered there, or None if it needs nothing."""
        if not isinstance(self.batches, OwnOrder):
            return None
        return self.batches.state_at(epoch, done, over=over)
