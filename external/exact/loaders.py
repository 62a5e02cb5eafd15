"""A user's data on our order of samples; what cannot be entered in its middle is said.

Lightning's own distributed sampler orders, pads and repeats samples by the number of processes,
and begins an epoch anew on resume. Here `train_dataloader()` and the evaluation loaders of a
LightningDataModule give the same data set, workers and collation over a `GlobalBatchSampler`.
A user's own order keeps its batches and is entered by its state, see `train_loader`.
"""

from collections.abc import Callable
from typing import Any

from lightning.pytorch import LightningDataModule, Trainer

from ..data_modules import EVALUATION_LOADERS
from .evaluation_loaders import evaluation_loaders
from .exact_resume import install
from .randomness import derive_seed, seeded_apart
from .sampling import GlobalBatchSampler
from .seeded_loader import SeededLoader
from .train_loader import train_loader


def put_in_order(
    data: LightningDataModule, trainer: Trainer, *, batch_size: int | None, seed: int
) -> None:
    """Make the loaders of `data` follow our order of samples; changes the instance.

    The Trainer gets what makes its fit exact (`exact_resume`), and leaves samplers alone.

    Args:
        data: The user's data module.
        trainer: Runs it; its progress says where an epoch is entered.
        batch_size: Samples per batch of the loader over all ranks; None takes the loader's own
            batch size as the global one.
        seed: Of the order of samples, and of all randomness.
    """
    exact = install(trainer, seed=seed)
    trainer._accelerator_connector.use_distributed_sampler = False
    users = vars(data).setdefault("_in_users_order", {})  # what they were before the first Trainer

    def made(own: Callable[[], Any]) -> Any:
        every = trainer.reload_dataloaders_every_n_epochs  # type: ignore[attr-defined]
        epoch = trainer.current_epoch - trainer.current_epoch % every if every else 0
        with seeded_apart(derive_seed(seed, "loaders", epoch)):
            return own()

    def train_dataloader() -> Any:
        own = made(users["train_dataloader"])
        return train_loader(own, trainer, exact, batch_size=batch_size, seed=seed)

    users.setdefault("train_dataloader", data.train_dataloader)
    data.train_dataloader = train_dataloader  # type: ignore[method-assign]
    for name in EVALUATION_LOADERS:
        own = users.setdefault(name, getattr(data, name))
        if getattr(own, "__func__", own) is getattr(LightningDataModule, name):
            continue  # not defined by the user

        def evaluation_dataloader(own: Any = own, name: str = name) -> Any:
            return evaluation_loaders(
                made(own), trainer, batch_size=batch_size, seed=seed, role=name
            )

        setattr(data, name, evaluation_dataloader)


def train_sampler(trainer: Trainer) -> GlobalBatchSampler | None:
    """Return the sampler of the training data, or None where it is not ours."""
    sampler = getattr(trainer.train_dataloader, "batch_sampler", None)
    return sampler if isinstance(sampler, GlobalBatchSampler) else None


def can_stop_validation(trainer: Trainer) -> bool:
    """Return whether the ranks may end before the next batch of a validation and begin it again.

    They can agree if all of them have the same number of batches for certain, and nothing is
    logged twice if nothing is logged yet.
    """
    val_loop = trainer.fit_loop.epoch_loop.val_loop
    is_even = trainer.world_size == 1 or all(
        isinstance(loader, SeededLoader)
        for loader in getattr(val_loop._combined_loader, "flattened", [None])
    )
    logged = [each for each in val_loop._results.values() if not each.has_reset]
    return is_even and not any(each.meta.on_step and each.meta.logger for each in logged)
