"""The last clean state of a transformers Trainer, in memory, and as the folder that it would save.

Of one process only: what several have, they would have to write together, which one that fails
cannot ask of the others.
"""

import copy
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from .findings import LOG
from .held_state import HeldState, copied
from .transformers_left_out import file_of

FOR_OURS = {"save_total_limit": None, "save_only_model": False, "push_to_hub": False}
"""Settings of the Trainer for saves that the script did not ask for."""


def hold(held: HeldState, trainer: Any, left_out: dict[str, Any]) -> None:
    """Copy what a Trainer would save between two steps, and what it leaves out."""
    began = time.monotonic()
    held.hold(_all_of(trainer) | {"left out": left_out}, trainer.state.global_step)
    held.spend(time.monotonic() - began)
    held.wait()


def save(held: HeldState, trainer: Any, newest: int, put: Callable[[Path, int], None]) -> None:
    """Save the copy after an error, if it is newer than what is saved.

    The Trainer is then as it was. Another error is only said.

    Args:
        held: Holds the copy.
        trainer: Has failed.
        newest: The last step that is saved.
        put: Puts a checkpoint's folder of a step into the store.
    """
    kept = held.take(newest)
    if kept is None:
        return
    state, step = kept
    try:
        with TemporaryDirectory(prefix="curitorch-") as folder:
            saved = Path(folder, f"checkpoint-{step}")
            _save_as(trainer, state, folder)
            torch.save(state["left out"], saved / file_of(0))
            put(saved, step)
    except Exception as error:
        LOG.warning("The last clean state could not be saved after the error: %s", error)
    else:
        LOG.warning("Saved the last clean state, of step %d.", step)


def _save_as(trainer: Any, state: dict[str, Any], folder: str) -> None:
    """Let a Trainer save a state that is not its own."""
    now = copied(_all_of(trainer))
    settings = {"output_dir": folder, **FOR_OURS}
    before = {name: getattr(trainer.args, name) for name in settings}
    try:
        _put(trainer, state)
        for name, value in settings.items():
            setattr(trainer.args, name, value)
        trainer._save_checkpoint(trainer.model, None)
    finally:
        for name, value in before.items():
            setattr(trainer.args, name, value)
        _put(trainer, now)


def _parts(trainer: Any) -> dict[str, Any]:
    parts = {
        "model": trainer.model,
        "optimizer": trainer.optimizer,
        "scheduler": trainer.lr_scheduler,
        "scaler": getattr(trainer.accelerator, "scaler", None),
    }
    return {name: each for name, each in parts.items() if each is not None}


def _all_of(trainer: Any) -> dict[str, Any]:
    found = {name: each.state_dict() for name, each in _parts(trainer).items()}
    found["trainer"] = copy.deepcopy(trainer.state)
    found["control"] = copy.copy(trainer.control)
    found["flos"] = trainer.current_flos
    return found


def _put(trainer: Any, state: dict[str, Any]) -> None:
    trainer.current_flos = state["flos"]
    for name, each in _parts(trainer).items():
        each.load_state_dict(state[name])
    for name, kept in (("state", state["trainer"]), ("control", state["control"])):
        getattr(trainer, name).__dict__.update(kept.__dict__)
