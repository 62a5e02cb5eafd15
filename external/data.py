"""Making a user's data and model objects from what the command line says."""

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..params.trainer import TrainerParams
from .environment import Ranks
from .job import RefusedJob


def make_data(
    function: Any, params: TrainerParams, *, dataset_path: Path | None, ranks: Ranks
) -> Any:
    """Call a data class or function with what its signature has a name for.

    `dataset_path` goes to a parameter of that name, or else to the first one; `batch_size`, the
    samples of one process's batch, only to a parameter of that name.

    Raises:
        RefusedJob: The signature has no place for the arguments.
    """
    arguments: dict[str, Any] = dict(params.data_args)
    accepted = inspect.signature(function).parameters
    offered: dict[str, Any] = {
        "dataset_path": dataset_path,
        "batch_size": params.batch_size // params.accumulate // ranks.world_size,
    }
    for name, value in offered.items():
        if name in accepted and value is not None:
            arguments.setdefault(name, value)
    positional: list[Path] = []
    if dataset_path is not None and "dataset_path" not in accepted:
        first = next(iter(accepted.values()), None)
        if first is None or first.name in arguments or first.kind is first.KEYWORD_ONLY:
            raise RefusedJob(
                f"--dataset_path is given, but {params.data!r} takes no path. "
                "Give its constructor or function a parameter 'dataset_path'."
            )
        positional = [dataset_path]
    return call_with(function, "--data_args", arguments, *positional)


def call_with(function: Any, option: str, arguments: Mapping[str, Any], *positional: Any) -> Any:
    """Call `function`, whose arguments came from the command line's `option`.

    Raises:
        RefusedJob: The signature has no place for them.
    """
    try:
        inspect.signature(function).bind(*positional, **arguments)
    except TypeError as error:
        raise RefusedJob(
            f"{option} {dict(arguments)!r} does not fit {function.__qualname__}"
            f"{inspect.signature(function)}: {error}."
        ) from error
    return function(*positional, **arguments)
