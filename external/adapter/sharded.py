"""A training state whose tensors lie in parts on many processes, as one checkpoint.

Every process writes its parts, through torch.distributed.checkpoint; what is no sharded tensor
stays an ordinary file beside them, in which a marker stands for each of those. All of it is put
into the store at once, as one checkpoint with the checksum of every file:

    rest.ckpt  metadata  __0_0.distcp  __1_0.distcp …

It is read by any number of processes, or as a whole by one.
"""

import copy
import io
import pickle
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.metadata import StorageMeta
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor, empty

from ..state_files import REST
from ..stores.store import Lease, Store, StoredCheckpoint, StoreError

_METADATA = "metadata"
_MARK = "curitorch_sharded"
_DESCRIPTIONS = {
    ("torch", "Size"),
    ("torch.serialization", "_get_layout"),
    ("torch.distributed.checkpoint.filesystem", "_StorageInfo"),
    *(("pathlib", name) for name in ("Path", "PosixPath", "PurePosixPath")),
    *(("pathlib._local", name) for name in ("Path", "PosixPath", "PurePosixPath")),
}


def divided(state: Any, *, rank: int) -> tuple[dict[str, DTensor], bytes]:
    """Return the tensors of `state` that lie in parts, by name, and the file of all else.

    Args:
        state: Dictionaries and lists with tensors, some of them DTensors, the same in every
            process but for those.
        rank: Rank 0 gets the file, of which nothing changes any more; others get b"".
    """
    parts: dict[str, DTensor] = {}

    def take(tensor: DTensor) -> dict[str, Any]:
        name = f"tensor-{len(parts)}"
        parts[name] = tensor
        return {_MARK: name, "shape": [*tensor.shape], "dtype": tensor.dtype, "dims": _dims(tensor)}

    rest = _replaced(state, lambda each: isinstance(each, DTensor), take)
    file = io.BytesIO()
    if rank == 0:
        torch.save(rest, file)
    return parts, file.getvalue()


def write_shards(parts: Mapping[str, DTensor], folder: Path, *, group: Any = None) -> None:
    """Write `parts` into `folder`, which all processes see; every process calls it.

    All of them are written, and durable, when it returns on rank 0.

    Args:
        parts: From `divided`.
        folder: With nothing in it but the file of all else, `REST`.
        group: Of all processes, that they talk in.
    """
    save(dict(parts), checkpoint_id=folder, process_group=group)


def put_shards(
    store: Store,
    step: int,
    folder: Path,
    *,
    processes: int,
    details: Mapping[str, Any] | None = None,
    lease: Lease | None = None,
) -> StoredCheckpoint:
    """Make what `write_shards` wrote the checkpoint of `step`; rank 0 calls it.

    Args:
        store: Where it goes.
        step: Optimizer steps done.
        folder: With `REST` as well; its files are moved into the store if that can be.
        processes: Whose files are expected.
        details: For the sidecar.
        lease: The right to write to the store.

    Raises:
        StoreError: The file of a process is not there; or of `Store.put`.
        OSError: A file cannot be read.
    """
    found = {path.name: path for path in sorted(folder.glob("*.distcp"))}
    missing = sorted({*range(processes)} - {int(name.split("_")[2]) for name in found})
    if missing:
        raise StoreError(
            f"The parts of ranks {missing} are not in '{folder}'. Put the store, or TMPDIR, on a "
            "file system that all nodes share."
        )
    files = {REST: folder / REST, _METADATA: folder / ".metadata", **found}
    return store.put(step, files, details=details, lease=lease, move=True)


def read_shards(
    folder: Path,
    *,
    mesh: DeviceMesh | None = None,
    whole: tuple[str, ...] = (),
    weights_only: bool = True,
) -> dict[str, Any]:
    """Return the state that `write_shards` wrote, sharded over `mesh` or whole.

    Args:
        folder: Its files, as a store keeps them.
        mesh: The processes that share the tensors, however many wrote them; each calls it. None:
            this process alone gets everything.
        whole: Keys of the state whose tensors every process gets as a whole.
        weights_only: As in `torch.load`.

    Raises:
        pickle.UnpicklingError: A file has what is neither tensors nor plain data.
    """
    rest = torch.load(folder / REST, map_location="cpu", weights_only=weights_only)
    parts: dict[str, Any] = {}

    def make(mark: dict[str, Any], mesh: DeviceMesh | None) -> Any:
        shape, dtype = mark["shape"], mark["dtype"]
        if mesh is None:
            tensor: Any = torch.empty(shape, dtype=dtype)
        else:
            placements = [Replicate() if dim is None else Shard(dim) for dim in mark["dims"]]
            tensor = empty(*shape, dtype=dtype, device_mesh=mesh, placements=placements)
        parts[mark[_MARK]] = tensor
        return tensor

    def is_mark(value: Any) -> bool:
        return isinstance(value, dict) and _MARK in value

    state = {
        key: _replaced(value, is_mark, partial(make, mesh=None if key in whole else mesh))
        for key, value in rest.items()
    }
    load(parts, storage_reader=_Reader(folder), no_dist=mesh is None)
    return state


def gathered(state: Any, *, rank: int) -> Any:
    """Return `state` with whole tensors on the CPU of rank 0; every process calls it.

    One tensor at a time is whole elsewhere.
    """

    def gather(tensor: DTensor) -> Tensor | None:
        full = tensor.full_tensor()
        return full.detach().cpu().clone() if rank == 0 else None

    return _replaced(state, lambda each: isinstance(each, DTensor), gather)


def spread(values: Mapping[str, Any], like: Mapping[str, Any]) -> dict[str, Any]:
    """Return `values` with each whole tensor cut as the one of its name in `like` is.

    Args:
        values: Of a state_dict, or of one parameter in an optimizer.
        like: DTensors or others; what is missing or of another shape stays whole.
    """

    def cut(name: str, value: Any) -> Any:
        pattern = like.get(name)
        is_whole = isinstance(value, Tensor) and not isinstance(value, DTensor)
        if not (is_whole and isinstance(pattern, DTensor) and value.shape == pattern.shape):
            return value
        value = value.to(pattern.device_mesh.device_type)
        mesh, placements = pattern.device_mesh, pattern.placements
        # each process has the whole: nothing is sent
        return distribute_tensor(value, mesh, placements, src_data_rank=None)

    return {name: cut(name, value) for name, value in values.items()}


def spread_optimizer(state: dict[str, Any], optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Return an optimizer's whole state_dict with its tensors cut as the parameters are."""
    parameters = [each for group in optimizer.param_groups for each in group["params"]]
    cut = copy.copy(state)
    cut["state"] = {
        number: spread(values, dict.fromkeys(values, parameters[number]))
        for number, values in state["state"].items()
    }
    return cut


class _Reader(FileSystemReader):
    """Reads the metadata under the name that a store can keep, and nothing else than metadata."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._folder = folder

    def read_metadata(self, *arguments: Any, **options: Any) -> Any:
        """Return it."""
        with (self._folder / _METADATA).open("rb") as file:
            metadata = _Unpickler(file).load()
        metadata.storage_meta = metadata.storage_meta or StorageMeta()
        metadata.storage_meta.load_id = self.load_id
        return metadata


class _Unpickler(pickle.Unpickler):
    """Knows the classes that torch.distributed.checkpoint describes tensors with, and no other."""

    def find_class(self, module: str, name: str) -> Any:
        """Return a class that is none but a description."""
        described = module == "torch.distributed.checkpoint.metadata"
        described |= (module, name) in _DESCRIPTIONS
        described |= module == "torch" and isinstance(getattr(torch, name, None), torch.dtype)
        if not described:
            raise pickle.UnpicklingError(
                f"The metadata of a sharded checkpoint names {module}.{name}, which describes no "
                "tensor: it was altered, or is of another version of torch."
            )
        return super().find_class(module, name)


def _dims(tensor: DTensor) -> list[int | None]:
    """Return along which dimension each axis of the mesh cuts; None: it has copies."""
    return [p.dim if isinstance(p, Shard) else None for p in tensor.placements]


def _replaced(value: Any, is_it: Callable[[Any], bool], replace: Callable[[Any], Any]) -> Any:
    """Return a copy of nested dictionaries and lists in which some leaves are others."""
    if is_it(value):
        return replace(value)
    if isinstance(value, dict):
        return {name: _replaced(item, is_it, replace) for name, item in value.items()}
    if type(value) is list:
        return [_replaced(item, is_it, replace) for item in value]
    if type(value) is tuple:
        return tuple(_replaced(item, is_it, replace) for item in value)
    return value
