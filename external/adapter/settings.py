"""The settings of a lean fit by the names of Lightning's Trainer, checked as it is made."""

import warnings
from typing import Any

from lightning.pytorch.utilities import GradClipAlgorithmType

from ..refused import Refused
from .validation_clock import seconds_of


def checked(given: dict[str, Any]) -> dict[str, Any]:
    """Return the settings with their defaults filled in, as a module reads them.

    Raises:
        Refused: A value is impossible; the message says what to write.
    """
    settings = dict(given)
    if settings["max_epochs"] is None:
        settings["max_epochs"] = -1
        if settings["max_steps"] == -1:
            settings["max_epochs"] = 1000
            warnings.warn(
                "Neither max_epochs nor max_steps is given: training ends after 1000 epochs. Give "
                "one of them, or max_epochs=-1 for no end.",
                stacklevel=3,
            )
    for name in ("max_epochs", "max_steps"):
        if not isinstance(settings[name], int) or settings[name] < -1:
            raise Refused(f"{name} is {settings[name]!r}, expected a whole number, or -1: no end.")
    if settings["min_epochs"] is None:
        settings["min_epochs"] = 0 if settings["min_steps"] is None else 1
    every = settings["accumulate_grad_batches"]
    if not isinstance(every, int) or every < 1:
        raise Refused(f"accumulate_grad_batches is {every!r}, expected a whole number from 1 on.")
    for name in ("limit_train_batches", "limit_val_batches"):
        settings[name] = _share(name, settings[name])
    seconds = settings["_val_check_time_interval"] = seconds_of(settings["val_check_interval"])
    interval = settings["val_check_interval"]
    settings["val_check_interval"] = (
        _share("val_check_interval", interval) if seconds is None else None
    )
    if settings["check_val_every_n_epoch"] is None and isinstance(
        settings["val_check_interval"], float
    ):
        raise Refused(
            f"val_check_interval is {settings['val_check_interval']}, a share of an epoch, and "
            "check_val_every_n_epoch=None counts over epochs. Give a whole number of batches, or a "
            "time."
        )
    if settings["num_sanity_val_steps"] == -1:
        settings["num_sanity_val_steps"] = float("inf")
    algorithm = settings["gradient_clip_algorithm"]
    if algorithm is not None:
        known = [each.value for each in GradClipAlgorithmType]
        if str(getattr(algorithm, "value", algorithm)).lower() not in known:
            raise Refused(f"gradient_clip_algorithm is {algorithm!r}, expected one of {known}.")
        name = str(getattr(algorithm, "value", algorithm)).lower()
        settings["gradient_clip_algorithm"] = GradClipAlgorithmType(name)
    return settings


def _share(name: str, value: Any) -> int | float:
    """Return a number of batches, or a share of them as a float."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        if value is None:
            return 1.0
        remedy = "a number of batches, or a share from 0.0 to 1.0"
        if name == "val_check_interval":
            remedy += ", or a time such as '00:00:30:00' (days, hours, minutes, seconds)"
        raise Refused(f"{name} is {value!r}, expected {remedy}.")
    if value < 0 or (isinstance(value, float) and value > 1.0):
        raise Refused(f"{name} is {value!r}, expected at least 0, and at most 1.0 for a share.")
    return value


def listed(value: Any) -> list[Any]:
    """Return one or several of something as a list; True and False are none."""
    if value is None or value is True or value is False:
        return []
    return list(value) if isinstance(value, list | tuple) else [value]
