"""Lightning's Trainers get `PeriodicCheckpoint`, and go on from its newest checkpoint.

What brings loaders and generators of the script's own back is `lightning_position`.
"""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from wrapt import wrap_function_wrapper

from ...params.checkpoint import CheckpointParams
from ..stores.known import check_known
from . import loader_iterators
from .framework_part import FrameworkPart
from .settings import AutopatchSettings

_CKPT_PATH = 4  # its place among the arguments of `fit`


def patch(settings: AutopatchSettings, session: Any) -> None:
    """Hook into `lightning.pytorch.Trainer`, which is imported."""
    from lightning.pytorch import Trainer

    from ..checkpoint import FILE
    from ..periodic_checkpoint import PeriodicCheckpoint
    from ..stop import TrainingStopped
    from .lightning_position import LightningPosition

    policy = CheckpointParams(
        every_n_epochs=None,
        every_n_seconds=settings.every_seconds,
        every_n_steps=settings.every_steps,
        keep=2,
        at_exit=settings.at_exit,
        at_error=settings.at_exit,
        asynchronous=True,
    )
    loader_iterators.FRAMEWORKS.have_loops = True
    parts = FrameworkPart.several("lightning", settings, session)

    def made(wrapped: Any, trainer: Any, args: Any, kwargs: Any) -> None:
        session.step_aside()
        part = trainer._curitorch = next(parts)
        given = kwargs.get("callbacks") or []
        own = list(given) if isinstance(given, list | tuple) else [given]
        if not any(isinstance(each, PeriodicCheckpoint) for each in own):
            # First, as a boundary is before the hooks of the script's own callbacks.
            own = [
                LightningPosition(session.findings, part.arrived),
                PeriodicCheckpoint(part.open(), policy),
                *own,
            ]
        wrapped(*args, **{**kwargs, "callbacks": own})

    def fit(wrapped: Any, trainer: Any, args: Any, kwargs: Any) -> Any:
        part = trainer._curitorch
        if len(args) > _CKPT_PATH or kwargs.get("ckpt_path") is not None:
            session.findings.add(
                "lightning.pytorch.Trainer.fit",
                "the script gives a ckpt_path of its own, from which it begins anew",
            )
            return wrapped(*args, **kwargs)
        with TemporaryDirectory(prefix="curitorch-") as folder, part.open() as store:
            part.begin(trainer.global_rank)
            found = None if part.is_used else store.fetch_newest_valid(FILE, Path(folder))
            if not part.is_used:
                check_known(store, None if found is None else found[0].step)
            if found is not None:
                part.goes_on(found[0].step)
                kwargs = {**kwargs, "ckpt_path": str(found[1])}
            part.trains()
            try:
                return wrapped(*args, **kwargs)
            except TrainingStopped as error:
                part.stopped(error.step, error.reason)
                raise
            finally:
                part.ended(trainer.global_step, trainer.global_rank)

    wrap_function_wrapper(Trainer, "__init__", made)
    wrap_function_wrapper(Trainer, "fit", fit)
