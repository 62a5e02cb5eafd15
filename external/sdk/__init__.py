"""The step SDK: PeriFlow's API for any training loop, reporting to the stage that launched it.

    import curitorch.external.sdk as pf

The names below are imported on first use; torch, Lightning and transformers only by the callbacks.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .api import (
        end_step,
        init,
        is_emergency_save,
        metric,
        start_step,
        train_step,
        upload_checkpoint,
    )
    from .errors import PeriFlowError, PeriFlowInternalError
    from .lightning_callback import LightningCallback
    from .samplers import ResumableRandomSampler, ResumableSequentialSampler
    from .transformers_callback import TransformersCallback

__all__ = [
    "LightningCallback",
    "PeriFlowError",
    "PeriFlowInternalError",
    "ResumableRandomSampler",
    "ResumableSequentialSampler",
    "TransformersCallback",
    "end_step",
    "init",
    "is_emergency_save",
    "metric",
    "start_step",
    "train_step",
    "upload_checkpoint",
]

_HOMES = {
    "LightningCallback": "lightning_callback",
    "PeriFlowError": "errors",
    "PeriFlowInternalError": "errors",
    "ResumableRandomSampler": "samplers",
    "ResumableSequentialSampler": "samplers",
    "TransformersCallback": "transformers_callback",
}


def __getattr__(name: str) -> object:
    """Import what is asked for (PEP 562); the functions are of `api`."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    module = importlib.import_module(f".{_HOMES.get(name, 'api')}", __name__)
    value: object = getattr(module, name)
    globals()[name] = value  # the next time costs nothing
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
