"""Lightning's Trainers get `PeriodicCheckpoint`, and go on from its newest checkpoint."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from wrapt import wrap_function_wrapper

from ...params.checkpoint import CheckpointParams
from .findings import LOG
from .settings import AutopatchSettings

_PART = "lightning"
_CKPT_PATH = 4  # its place among the arguments of `fit`


def patch(settings: AutopatchSettings, session: Any) -> None:
    """Hook into `lightning.pytorch.Trainer`, which is imported."""
    from lightning.pytorch import Trainer

    from ..checkpoint import FILE
    from ..periodic_checkpoint import PeriodicCheckpoint

    part = settings.for_part(_PART)
    policy = CheckpointParams(
        every_n_epochs=None,
        every_n_seconds=settings.every_seconds,
        every_n_steps=settings.every_steps,
        keep=2,
        at_error=settings.at_exit,
        asynchronous=True,
    )

    def made(wrapped: Any, trainer: Any, args: Any, kwargs: Any) -> None:
        session.step_aside()
        given = kwargs.get("callbacks") or []
        callbacks = list(given) if isinstance(given, list | tuple) else [given]
        if not any(isinstance(each, PeriodicCheckpoint) for each in callbacks):
            callbacks.append(PeriodicCheckpoint(part.open(), policy))
        wrapped(*args, **{**kwargs, "callbacks": callbacks})

    def fit(wrapped: Any, trainer: Any, args: Any, kwargs: Any) -> Any:
        if len(args) > _CKPT_PATH or kwargs.get("ckpt_path") is not None:
            return wrapped(*args, **kwargs)
        with TemporaryDirectory(prefix="curitorch-") as folder, part.open() as store:
            found = store.fetch_newest_valid(FILE, Path(folder))
            if found is not None:
                LOG.warning("Goes on at step %d, where it was saved.", found[0].step)
                session.findings.add(
                    "lightning.pytorch",
                    "Lightning begins the order of a plain DataLoader, and what is random in an "
                    "epoch, anew in the middle of it; train with curitorch.external.trainer for "
                    "an exact one",
                )
                kwargs = {**kwargs, "ckpt_path": str(found[1])}
            return wrapped(*args, **kwargs)

    wrap_function_wrapper(Trainer, "__init__", made)
    wrap_function_wrapper(Trainer, "fit", fit)
