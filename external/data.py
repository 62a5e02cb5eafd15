"""Making a user's data and model objects from what the command line says."""

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..params.trainer import TrainerParams
from .environment import Ranks
from .refused import Refused

if TYPE_CHECKING:
    from lightning.pytorch import LightningDataModule


def make_data(
    function: Any, params: TrainerParams, *, dataset_path: Path | None, ranks: Ranks
) -> "LightningDataModule":
    """Return the data module that a class is or a function's loaders make.

    It is called with what its signature has a name for.

    `dataset_path` goes to a parameter of that name, or else to the first one; `batch_size`, the
    samples of one process's batch, only to a parameter of that name.

    Raises:
        Refused: The signature has no place for the arguments, or what it gives is no data.
    """
    from lightning.pytorch import LightningDataModule

    from .data_modules import LoaderData

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
            raise Refused(
                f"--dataset_path is given, but {params.data!r} takes no path. "
                "Give its constructor or function a parameter 'dataset_path'."
            )
        positional = [dataset_path]
    made = call_with(function, "--data_args", arguments, *positional)
    return made if isinstance(made, LightningDataModule) else LoaderData(made)


def call_with(function: Any, option: str, arguments: Mapping[str, Any], *positional: Any) -> Any:
    """Call `function`, whose arguments came from the command line's `option`.

    Raises:
        Refused: The signature has no place for them.
    """
    try:
        inspect.signature(function).bind(*positional, **arguments)
    except TypeError as error:
        raise Refused(
            f"{option} {dict(arguments)!r} does not fit {function.__qualname__}"
            f"{inspect.signature(function)}: {error}."
        ) from error
    return function(*positional, **arguments)
