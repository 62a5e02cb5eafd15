"""A few samples of a dataset, by the data module or function that the training read it with."""

import importlib
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...params.trainer import TrainerParams
from ..environment import Ranks
from ..import_object import ObjectNotFound, import_object, split
from ..model_class import folder_above
from .found_runs import Runs
from .notice import say

if TYPE_CHECKING:
    from lightning.pytorch import LightningDataModule

PARTS = {"test": "test", "val": "validate", "train": "fit"}
"""The loaders that are looked for, in this order, and what Lightning calls their stage."""


@dataclass(frozen=True)
class Samples:
    """One batch: `batch` as the loader gave it; `part` says of which loader."""

    batch: Any
    part: str
    count: int

    @property
    def inputs(self) -> Any:
        """What the model is given: the first of several, a dict as it is."""
        is_several = isinstance(self.batch, list | tuple) and len(self.batch) > 0
        return self.batch[0] if is_several else self.batch

    @property
    def targets(self) -> Any:
        """What it should say: the second of several, a dict's labels; None if there is none."""
        if isinstance(self.batch, list | tuple):
            return self.batch[1] if len(self.batch) > 1 else None
        if isinstance(self.batch, Mapping):
            return next((self.batch[n] for n in _TARGETS if n in self.batch), None)
        return None

    def __repr__(self) -> str:
        return f"{self.count} samples of the {self.part} data: {described(self.batch)}"


_TARGETS = ("labels", "label", "targets", "target", "y")


def samples(
    runs: Runs,
    dataset: str | Path | None,
    data: str | None,
    data_args: Mapping[str, object] | None = None,
    *,
    count: int = 16,
    part: str = "test",
) -> Samples | None:
    """Return the first samples of a dataset; None, and a sentence, if they cannot be read.

    Args:
        runs: Whose folder relative paths are relative to, and near whose project `data` lies.
        dataset: Its path; None for data that takes none.
        data: The data module or function, as `package.module:Name`.
        data_args: Further arguments of it.
        count: How many samples.
        part: "test", "val" or "train"; if there is none of it, the next one of these.
    """
    if not data:
        say(
            "No samples: nobody said what reads the dataset. Write it into this cell as "
            '"package.module:Name": a LightningDataModule, or a function that returns loaders.'
        )
        return None
    path = None if dataset is None else runs.path(dataset)
    if path is not None and not path.exists():
        say(
            f"The dataset '{path}' is not there (seen from '{Path.cwd()}'). It was moved or "
            f'deleted: say where it is now, explore.samples(runs, "…", {data!r}), or run its '
            "experiment again."
        )
        return None
    try:
        function = _import(data, near=runs.folder)
    except (ObjectNotFound, ImportError) as error:
        say(f"No samples: {error}")
        return None
    try:
        return _first(function, data, dict(data_args or {}), path, count, part)
    except Exception as error:  # the user's own code, which may raise anything
        say(f"No samples: {data!r} raised {type(error).__name__} for '{path}': {error}")
        return None


def described(value: Any) -> str:
    """Return the shapes in a batch: `[float32 (16, 8, 8), int64 (16,)]`."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {described(entry)}" for key, entry in value.items()) + "}"
    if isinstance(value, list | tuple) and len(value) <= 8 and not isinstance(value[:1], str):
        return "[" + ", ".join(described(entry) for entry in value) + "]"
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return f"{str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}"
    return type(value).__name__


def _import(name: str, *, near: Path) -> Any:
    """Import what `name` names, from the project around `near` if it is not on the path."""
    module, _ = split(name, option="data")
    try:
        importlib.import_module(module)
    except ModuleNotFoundError:
        folder = folder_above(near / "notebook", module)
        if folder is not None and str(folder) not in sys.path:
            sys.path.append(str(folder))
            importlib.invalidate_caches()
    return import_object(name, option="data")


def _first(
    function: Any, name: str, arguments: dict[str, object], path: Path | None, count: int, part: str
) -> Samples:
    import torch

    from ..data import make_data

    params = TrainerParams(data=name, data_args=arguments, batch_size=count)
    data = make_data(function, params, dataset_path=path, ranks=Ranks())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # a shuffled loader gives every notebook the same samples
        found, loader = _loader(data, part)
        batch = next(iter(loader))
    return Samples(_head(batch, count, _length(batch)), found, min(count, _length(batch)))


def _loader(data: "LightningDataModule", part: str) -> tuple[str, Any]:
    from lightning.pytorch import LightningDataModule

    data.prepare_data()
    for candidate in dict.fromkeys([part, *PARTS]):
        method = getattr(data, f"{candidate}_dataloader")
        if getattr(method, "__func__", None) is getattr(
            LightningDataModule, f"{candidate}_dataloader"
        ):
            continue
        data.setup(PARTS[candidate])
        loader = method()
        if isinstance(loader, Mapping):
            loader = next(iter(loader.values()))
        return candidate, loader[0] if isinstance(loader, list | tuple) else loader
    raise LookupError("It has no test, validation or train loader.")


def _length(batch: Any) -> int:
    """Return how many samples are in a batch: the length of its first tensor or list."""
    if isinstance(batch, Mapping):
        return _length(next(iter(batch.values())))
    if isinstance(batch, list | tuple) and batch and hasattr(batch[0], "shape"):
        return _length(batch[0])
    return len(batch) if hasattr(batch, "__len__") else 1


def _head(batch: Any, count: int, length: int) -> Any:
    """Return the first `count` of the `length` samples in every part of a batch."""
    if isinstance(batch, Mapping):
        return {key: _head(entry, count, length) for key, entry in batch.items()}
    if isinstance(batch, list | tuple):
        if len(batch) == length and not hasattr(batch[0], "shape"):
            return batch[:count]
        return [_head(entry, count, length) for entry in batch]
    if hasattr(batch, "shape") and batch.shape and batch.shape[0] == length:
        return batch[:count]
    return batch
