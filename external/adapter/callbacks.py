"""What a module's `configure_callbacks` asks for: displays are left out, others are refused.

The lean loop runs no callbacks. A progress bar is not missed; a callback that saves, stops or
changes weights would be.
"""

from collections.abc import Iterator

from lightning.pytorch import LightningModule
from lightning.pytorch.callbacks import (
    Callback,
    Checkpoint,
    DeviceStatsMonitor,
    EarlyStopping,
    LearningRateMonitor,
    ModelSummary,
    ProgressBar,
)
from lightning.pytorch.utilities.model_helpers import is_overridden

from .finding import Finding
from .overrides import overridden

_DISPLAYS = (ProgressBar, ModelSummary, LearningRateMonitor, DeviceStatsMonitor)
_REMEDIES: tuple[tuple[type[Callback], str], ...] = (
    (Checkpoint, "say when to save with CheckpointParams (LeanTrainer's checkpoint=…)"),
    (EarlyStopping, "give LeanTrainer monitor=… and patience=…"),
)


def callback_findings(module: LightningModule) -> Iterator[Finding]:
    """Ask the module for its callbacks, and yield what becomes of each."""
    if not is_overridden("configure_callbacks", module):
        return
    override = next(
        each for each in overridden(module, LightningModule) if each.name == "configure_callbacks"
    )
    name = f"{override.defined_by}.configure_callbacks"
    try:
        asked = module.configure_callbacks()
    except RuntimeError as error:  # such as "not attached to a `Trainer`"
        text = f"it failed before there is a trainer ({error}): do without self.trainer in it"
        yield Finding("refused", name, override.place, text)
        return
    for callback in [asked] if isinstance(asked, Callback) else asked or []:
        kind = type(callback).__name__
        if isinstance(callback, _DISPLAYS):
            yield Finding(
                "warned", name, override.place, f"the loop runs no callbacks, {kind} is left out"
            )
            continue
        remedy = "put its code into hooks of the module"
        for base, special in _REMEDIES:
            remedy = special if isinstance(callback, base) else remedy
        yield Finding(
            "refused", name, override.place, f"the loop runs no callbacks such as {kind}: {remedy}"
        )
