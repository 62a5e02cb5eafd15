"""The models of runs, as instances of the classes that they were trained as."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from ..model import ModelDoesNotFit, load_model
from ..model_class import ModelClassNotFound
from ..model_file import UntrustedModel
from ..rundir import TrainingRun
from ..schema import UnreadableFile
from .notice import say

if TYPE_CHECKING:
    from lightning.pytorch import LightningModule


def models(
    runs: Mapping[str, TrainingRun],
    *,
    model_class: "type[LightningModule] | None" = None,
    aliases: Mapping[str, str] | None = None,
    trusted: bool = False,
) -> "dict[str, LightningModule]":
    """Return the models that can be loaded, by the names of their runs, ready to predict.

    Of a run that is not complete it is the newest whole checkpoint, which is said; so is why a
    model is missing.

    Args:
        runs: The runs.
        model_class: The class to build instead of the recorded one.
        aliases: New places of renamed classes: `{"old.module:Old": "new.module:New"}`.
        trusted: Whether code in the files may run, if they cannot be opened without.
    """
    loaded = {}
    for name, run in runs.items():
        path, note = run.model_path, ""
        state = run.state
        try:
            if state.word != "complete":
                newest = run.newest_checkpoint()
                if newest is None:
                    say(f"{name}: no model, for there is no whole checkpoint yet. {state.sentence}")
                    continue
                note = f"not the final model but that of step {newest.step}. {state.sentence}"
                path = newest.path
            model = load_model(path, model_class=model_class, aliases=aliases, trusted=trusted)
        except (
            *(OSError, UnreadableFile, ModelClassNotFound),
            *(UntrustedModel, ModelDoesNotFit),
        ) as error:
            say(f"{name}: no model. {error}")
            continue
        if note:
            say(f"{name}: {note}")
        loaded[name] = model.eval()
    return loaded
