"""What `configure_optimizers` may return, read into optimizers and scheduler settings.

All forms of Lightning 2.6, and its rules (lightning/pytorch/core/optimizer.py): nothing, an
optimizer, a list of them, two lists, a dictionary, a list of dictionaries.
"""

import dataclasses
import warnings
from collections.abc import Mapping
from typing import Any

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import LightningModule
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.utilities.model_helpers import is_overridden
from lightning.pytorch.utilities.types import LRSchedulerConfig
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, OneCycleLR, ReduceLROnPlateau

_FORMS = (
    "an optimizer, [optimizers], ([optimizers], [schedulers]), "
    '{"optimizer": …, "lr_scheduler": …, "monitor": …}, or a list of such dictionaries'
)
_KEYS = {"optimizer", "lr_scheduler", "monitor"}
_SETTINGS = {each.name for each in dataclasses.fields(LRSchedulerConfig)}
_OF_AUTOMATIC = {"reduce_on_plateau", "monitor", "strict"}


class NoOptimizer(Optimizer):
    """Stands where `configure_optimizers` returned None: a step changes nothing."""

    def __init__(self) -> None:
        super().__init__([torch.zeros(1)], {})

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Do nothing."""

    def state_dict(self) -> dict[str, Any]:
        """Return nothing."""
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Do nothing."""

    def step(self, closure: Any = None) -> Any:
        """Call the closure."""
        return None if closure is None else closure()

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Do nothing."""


def configured(module: LightningModule) -> tuple[list[Any], list[LRSchedulerConfig]]:
    """Call `module.configure_optimizers()` and read what it returns.

    Raises:
        MisconfigurationException: It is of no known form, or a scheduler's settings are wrong.
        RuntimeError: Several optimizers, and optimization is automatic.
        TypeError: A scheduler without a state.
    """
    returned = module.configure_optimizers()
    if returned is None:
        warnings.warn(
            f"{type(module).__qualname__}.configure_optimizers returned None: this fit changes no "
            "weights. Return an optimizer.",
            stacklevel=2,
        )
        returned = NoOptimizer()
    optimizers, schedulers, monitor = _read(returned)
    if module.automatic_optimization:
        configs = [_automatic(each, monitor) for each in schedulers]
        if len(optimizers) > 1:
            raise RuntimeError(
                f"configure_optimizers returned {len(optimizers)} optimizers, which automatic "
                "optimization cannot choose from. Set self.automatic_optimization = False and step "
                "each in training_step: a, b = self.optimizers()."
            )
    else:
        configs = [_manual(each) for each in schedulers]
    for config in configs:
        _check(config, optimizers, module)
    return optimizers, configs


def _read(found: Any) -> tuple[list[Any], list[Any], str | None]:
    """Return the optimizers, the schedulers as they are, and what a lone plateau monitors."""
    if _is_optimizer(found):
        return [found], [], None
    if isinstance(found, Mapping):
        found = dict(found)
        _check_keys(found)
        schedulers = [found["lr_scheduler"]] if "lr_scheduler" in found else []
        return [found["optimizer"]], schedulers, found.get("monitor")
    if isinstance(found, list | tuple):
        is_pair = len(found) == 2 and isinstance(found[0], list)
        if is_pair and all(map(_is_optimizer, found[0])):
            return found[0], found[1] if isinstance(found[1], list) else [found[1]], None
        if all(isinstance(each, dict) for each in found):
            for each in found:
                _check_keys(each)
            each_schedulers = [each["lr_scheduler"] for each in found if "lr_scheduler" in each]
            as_dicts = [
                dict(s) if isinstance(s, dict) else {"scheduler": s} for s in each_schedulers
            ]
            return [each["optimizer"] for each in found], as_dicts, None
        if all(map(_is_optimizer, found)):
            return list(found), [], None
    raise MisconfigurationException(f"configure_optimizers returned {found!r}. Return {_FORMS}.")


def _is_optimizer(found: object) -> bool:
    if isinstance(found, Optimizer | LightningOptimizer):
        return True
    return all(hasattr(found, name) for name in ("param_groups", "step", "state_dict"))


def _check_keys(found: dict[str, Any]) -> None:
    extra = found.keys() - _KEYS
    if extra:
        warnings.warn(
            f"configure_optimizers returned a dictionary with {sorted(extra)}, which nobody reads. "
            f"Its keys are {sorted(_KEYS)}.",
            category=RuntimeWarning,
            stacklevel=2,
        )


def _automatic(scheduler: Any, monitor: str | None) -> LRSchedulerConfig:
    """Return the settings of a scheduler that the loop steps."""
    if not isinstance(scheduler, dict):
        is_plateau = isinstance(scheduler, ReduceLROnPlateau)
        if is_plateau and monitor is None:
            raise MisconfigurationException(_needs_monitor())
        if is_plateau:
            return LRSchedulerConfig(scheduler, reduce_on_plateau=True, monitor=monitor)
        return LRSchedulerConfig(scheduler)
    extra = scheduler.keys() - _SETTINGS
    if extra:
        warnings.warn(
            f"The scheduler's dictionary has {sorted(extra)}, which nobody reads. Its keys are "
            f"{sorted(_SETTINGS)}.",
            category=RuntimeWarning,
            stacklevel=2,
        )
    settings = {name: value for name, value in scheduler.items() if name in _SETTINGS}
    if "scheduler" not in settings:
        raise MisconfigurationException(
            'The scheduler\'s dictionary has no "scheduler". Write {"scheduler": StepLR(…), …}.'
        )
    if settings.get("interval", "epoch") not in ("step", "epoch"):
        raise MisconfigurationException(
            f'The scheduler\'s "interval" is {settings["interval"]!r}, expected "step" or "epoch".'
        )
    is_plateau = isinstance(settings["scheduler"], ReduceLROnPlateau)
    settings.setdefault("reduce_on_plateau", is_plateau)
    if settings["reduce_on_plateau"] and settings.get("monitor") is None:
        raise MisconfigurationException(_needs_monitor())
    if isinstance(settings["scheduler"], OneCycleLR) and settings.get("interval") != "step":
        warnings.warn(
            'OneCycleLR is stepped once per epoch. Did you mean "interval": "step"?',
            category=RuntimeWarning,
            stacklevel=2,
        )
    return LRSchedulerConfig(**settings)


def _manual(scheduler: Any) -> LRSchedulerConfig:
    """Return the settings of a scheduler that the user steps."""
    if not isinstance(scheduler, dict):
        return LRSchedulerConfig(scheduler)
    unused = sorted(scheduler.keys() & _OF_AUTOMATIC)
    if unused:
        warnings.warn(
            f"The scheduler's dictionary has {unused}, which manual optimization does not read: "
            "call scheduler.step() yourself.",
            category=RuntimeWarning,
            stacklevel=2,
        )
    return LRSchedulerConfig(**{n: v for n, v in scheduler.items() if n not in _OF_AUTOMATIC})


def _needs_monitor() -> str:
    return (
        "ReduceLROnPlateau has nothing to look at. Return "
        '{"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "monitor": "val_loss"}}.'
    )


def _check(config: LRSchedulerConfig, optimizers: list[Any], module: LightningModule) -> None:
    scheduler: Any = config.scheduler
    name = type(scheduler).__qualname__
    if not (hasattr(scheduler, "state_dict") and hasattr(scheduler, "load_state_dict")):
        raise TypeError(f"The scheduler {name} has no state_dict and load_state_dict: define both.")
    if getattr(scheduler, "optimizer", None) not in optimizers:
        raise MisconfigurationException(
            f"The scheduler {name} is of an optimizer that configure_optimizers did not return. "
            "Return that one as well."
        )
    is_torchs = isinstance(scheduler, LRScheduler | ReduceLROnPlateau)
    steps_it = not module.automatic_optimization or is_overridden("lr_scheduler_step", module)
    if not is_torchs and not steps_it:
        raise MisconfigurationException(
            f"The scheduler {name} is none of torch's, so how to step it is not known. "
            "Override lr_scheduler_step(scheduler, metric)."
        )
