"""The last clean state of a transformers Trainer, in memory, and as the folder that it would save.

Of several processes the first one holds all of it, what the others know as well, as each of them
hands over its part while all are well: one that fails cannot be asked, nor one that waits for it.
So the folder is written without the Trainer's model, devices, or other processes.
"""

import copy
import functools
import io
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from .findings import LOG
from .held_state import HeldState
from .transformers_left_out import file_of

FOR_OURS = {"save_total_limit": None, "save_only_model": False, "push_to_hub": False}
"""Settings of the Trainer for saves that the script did not ask for."""


class _Saved:
    """Stands for something that is saved by its `state_dict`."""

    def __init__(self, state: Any) -> None:
        self._state = state

    def state_dict(self) -> Any:
        return self._state


def is_whole(trainer: Any) -> bool:
    """Return whether the first process has all of the model and its optimizer."""
    of_parts = ("is_fsdp_enabled", "is_deepspeed_enabled", "is_distributed_loading_by_transformers")
    return not any(getattr(trainer, name, False) for name in of_parts)


def part_of(trainer: Any, left_out: dict[str, Any]) -> bytes:
    """Return what this process alone knows, to be handed over."""
    part = io.BytesIO()
    torch.save({**left_out, "flos": trainer.current_flos}, part)
    return part.getvalue()


def hold(held: HeldState, trainer: Any, parts: list[bytes], step: int) -> None:
    """Copy what a Trainer would save between two steps, and the parts of all processes."""
    began = time.monotonic()
    held.hold(_all_of(trainer) | {"parts": parts}, step)
    held.spend(time.monotonic() - began)
    held.wait()


def save(held: HeldState, trainer: Any, newest: int, put: Callable[[Path, int], None]) -> None:
    """Save the copy after an error, if it is newer than what is saved, in any thread.

    Another error is only said.

    Args:
        held: Holds the copy.
        trainer: Has failed, or waits for one that has.
        newest: The last step that is saved.
        put: Puts a checkpoint's folder of a step into the store.
    """
    kept = held.take(newest)
    if kept is None:
        return
    state, step = kept
    try:
        with TemporaryDirectory(prefix="curitorch-") as folder:
            stand_in = _stand_in(trainer, state, folder)
            stand_in._save_checkpoint(trainer.model, None)
            [saved] = Path(folder).glob("checkpoint-*")
            for rank, part in enumerate(state["parts"]):
                (saved / file_of(rank)).write_bytes(part)
            put(saved, step)
    except Exception as error:
        LOG.warning("The last clean state could not be saved after the error: %s", error)
    else:
        LOG.warning("Saved the last clean state, of step %d.", step)


def _stand_in(trainer: Any, state: dict[str, Any], folder: str) -> Any:
    """Return a Trainer that saves a state which is not its own, and waits for nobody."""
    saves, found = copy.copy(trainer), state["parts"]
    saves.args = copy.copy(trainer.args)
    # A strategy would have it ask the others where the best checkpoint is, which the state knows.
    for name, value in {**FOR_OURS, "output_dir": folder, "save_strategy": "no"}.items():
        setattr(saves.args, name, value)
    saves.state, saves.control = state["trainer"], state["control"]
    parts = [torch.load(io.BytesIO(part), weights_only=True) for part in found]
    saves.state.total_flos += sum(part["flos"] for part in parts)
    saves.store_flos = lambda: None  # which asks the others
    saves.optimizer, saves.lr_scheduler = _Saved(state["optimizer"]), _Saved(state["scheduler"])
    saves.accelerator = copy.copy(trainer.accelerator)
    saves.accelerator.scaler = _Saved(state["scaler"]) if "scaler" in state else None
    saves._save = functools.partial(type(trainer)._save, saves, state_dict=state["model"])
    return saves


def _all_of(trainer: Any) -> dict[str, Any]:
    parts = {
        "model": trainer.model,
        "optimizer": trainer.optimizer,
        "scheduler": trainer.lr_scheduler,
        "scaler": getattr(trainer.accelerator, "scaler", None),
    }
    found = {name: each.state_dict() for name, each in parts.items() if each is not None}
    found["trainer"] = copy.deepcopy(trainer.state)
    found["control"] = copy.copy(trainer.control)
    return found
