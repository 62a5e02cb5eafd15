"""The loaders of a fit with exact="world": grains to train on, and validation as a whole."""

from typing import Any

from ..exact.evaluation_loaders import evaluation_loaders
from ..exact.global_batches import drawing
from ..exact.loader_kinds import why_not_plain
from ..refused import Refused
from .batches import Batches
from .fit_data import FitData, check_after
from .grains import GrainLoader, Grains, GrainSampler

DEFAULT = 4
"""Grains of a global batch where nobody says: so many processes can take part."""


class WorldData(FitData):
    """See the module.

    Args:
        grain: Samples of a grain; None cuts a global batch into `DEFAULT` grains.
        options: Of `FitData`.

    Attributes:
        grains: How epochs are cut, once the training loader is made.
    """

    def __init__(self, *sources: Any, grain: int | None, **options: Any) -> None:
        super().__init__(*sources, **options)
        self._grain = grain
        self.grains: Grains = Grains(1, 1, 1)

    def set_up_train(self) -> Batches:
        """Make the training loader, if it is not made yet; limits count global batches."""
        if self.train is None:
            trainer = self._trainer
            loader = self._cut(self._made(self._train))
            self.unit = unit = self.grains.per_rank
            self._exact.compare_order(loader.batches.order)
            trainer.accumulate_grad_batches = unit
            trainer.train_dataloader = loader
            self.train = Batches(loader, trainer.limit_train_batches, unit=unit)
            trainer.num_training_batches = self.train.length
            whole = self.train.length // unit
            after = check_after(trainer, whole)
            trainer.val_check_batch = None if after is None else after * unit
        return self.train

    def place(self, index: int) -> tuple[int, int, int]:
        """Return of this process's grain `index` its batch, its number, and of how many it is."""
        grain = self.grains.at(index)
        return grain.batch, grain.number, self.grains.per_batch

    def _cut(self, loader: Any) -> GrainLoader:
        """Return `loader` over grains.

        Raises:
            Refused: Its order is not ours to define.
            UnevenBatch: The numbers do not fit.
        """
        reason = why_not_plain(loader)
        if isinstance(loader, list | tuple | dict):
            reason = "several loaders"
        if reason is not None:
            raise Refused(
                f"The training data has {reason}, whose order is no function of seed and epoch "
                "for every number of processes. exact='world' takes a plain DataLoader; or use "
                "exact='rank'."
            )
        trainer = self._trainer
        size = self._batch_size or loader.batch_sampler.batch_size
        drawn = drawing(loader, shuffled=True)
        self.grains = Grains(
            drawn.pop("samples"),
            size,
            self._grain or default_grain(size),
            rank=trainer.global_rank,
            world_size=trainer.world_size,
            drop_last=loader.drop_last,
        )
        return GrainLoader(
            loader, GrainSampler(self.grains, seed=self._seed, position=self._position, **drawn)
        )

    def _position(self) -> tuple[int, int]:
        place: tuple[int, int] = self._trainer.progress.place()
        return place

    def _evaluation_loaders(self, made: Any) -> Any:
        """Return validation loaders that every process goes through as a whole."""
        alone: Any = _Alone(self._trainer)
        return evaluation_loaders(
            made, alone, batch_size=None, seed=self._seed, role="val_dataloader"
        )


def default_grain(batch_size: int) -> int:
    """Return the samples of a grain where nobody says, for any number of processes the same."""
    return next(batch_size // n for n in (DEFAULT, DEFAULT // 2, 1) if batch_size % n == 0)


class _Alone:
    """The trainer as an only process would see it, for the loaders of a validation."""

    world_size, global_rank = 1, 0

    def __init__(self, trainer: Any) -> None:
        self._trainer = trainer
        self.fit_loop = self.epoch_loop = self.batch_progress = self.current = self

    @property
    def epoch_progress(self) -> Any:
        return self._trainer.fit_loop.epoch_progress

    @property
    def completed(self) -> int:
        """Batches done of the epoch under way: grains of all processes."""
        return int(self._trainer.progress.completed * self._trainer.world_size)
