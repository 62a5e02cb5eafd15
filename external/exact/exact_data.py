"""Data for a Trainer whose resumed fit is bitwise the one that was not interrupted.

    data = exact_data((train_loader, val_loader), seed=1)
    trainer = Trainer(callbacks=[PeriodicCheckpoint("runs/a/checkpoints")])
    trainer.fit(model, data, ckpt_path=newest or None)

Nothing else of curitorch is needed; docs/exact-resume.md says what is exact.
"""

from lightning.pytorch import LightningDataModule, LightningModule, Trainer

from ..data_modules import LoaderData, ModelData
from .loaders import put_in_order


def exact_data(
    data: object, *, batch_size: int | None = None, seed: int = 0
) -> LightningDataModule:
    """Return `data` as a data module whose order and randomness go by the position alone.

    A data module is changed and given back: its hooks, its state and its name stay.

    Args:
        data: A LightningDataModule, a loader, a tuple (train, validation[, test]), a dict with
            `train`, `val`, `test`, or a LightningModule that defines its loaders.
        batch_size: Samples per optimizer step over all processes and accumulated batches; None
            takes the loader's own as the batch over all processes.
        seed: Of the order of samples and of all randomness of a fit.

    Raises:
        Refused: `data` is none of these.
    """
    module: LightningDataModule
    if isinstance(data, LightningDataModule):
        module = data
    else:
        module = ModelData(data) if isinstance(data, LightningModule) else LoaderData(data)
    own_setup = module.setup
    seen: list[Trainer] = []

    def setup(stage: str) -> None:
        trainer = module.trainer
        if trainer is not None and trainer not in seen:
            seen[:] = [trainer]
            every = trainer.accumulate_grad_batches
            per_load = None if batch_size is None else batch_size // every
            put_in_order(module, trainer, batch_size=per_load, seed=seed)
        own_setup(stage)

    module.setup = setup  # type: ignore[method-assign]
    return module
