"""The random generators of a process: taking and restoring their states, as plain data."""

import random
from typing import Any

import numpy as np
import torch


def take() -> dict[str, Any]:
    """Return the states of the global generators of Python, NumPy, torch and its GPUs."""
    state = take_cpu()
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        state["cuda"] = torch.cuda.get_rng_state_all()
    return state


def take_cpu() -> dict[str, Any]:
    """Return the states without those of GPUs; takes about 20 µs."""
    return {
        "torch": torch.get_rng_state(),
        "python": of_python(random.getstate()),
        "numpy": of_numpy(np.random.get_state(legacy=False)),
    }


def put(state: dict[str, Any]) -> None:
    """Restore what `take` or `take_cpu` returned."""
    torch.set_rng_state(state["torch"])
    random.setstate(to_python(state["python"]))
    np.random.set_state(to_numpy(state["numpy"]))
    for number, each in enumerate(state.get("cuda", [])):
        if number < torch.cuda.device_count():
            torch.cuda.set_rng_state(each, number)


def of_python(state: Any) -> list[Any]:
    """Return the state of a `random.Random` as plain data."""
    version, words, gauss = state
    return [version, torch.from_numpy(np.array(words, np.int64)), gauss]


def to_python(state: list[Any]) -> Any:
    """Return what `random.setstate` takes."""
    return (state[0], tuple(state[1].tolist()), state[2])


def of_numpy(state: Any) -> Any:
    """Return the state of a bit generator of NumPy as plain data: arrays become tensors."""
    if isinstance(state, dict):
        return {key: of_numpy(value) for key, value in state.items()}
    if isinstance(state, np.ndarray):
        return [str(state.dtype), torch.from_numpy(state.copy().view(np.uint8))]
    if isinstance(state, np.generic):
        return state.item()
    return state


def to_numpy(state: Any) -> Any:
    """Return what `of_numpy` was given."""
    if isinstance(state, dict):
        return {key: to_numpy(value) for key, value in state.items()}
    if isinstance(state, list):
        return state[1].numpy().view(np.dtype(state[0])).copy()
    return state
