"""The pickled structure of a torch file: all but the storages, which are numbered and collected.

Byte for byte what torch's own `_save` and `Tensor.__reduce_ex__` make (torch/serialization.py and
torch/_tensor.py of torch 2.13), at half the cost where a tensor is an ordinary one; a test compares
the bytes.
"""

import collections
import io
import pickle
from typing import Any

import torch

_STORAGES = (torch.storage.TypedStorage, torch.UntypedStorage)
_NONE = {str, int, float, bool, tuple, list, dict, type(None)}  # not a storage, most often
_KINDS: dict[torch.dtype, Any] = {
    dtype: getattr(torch, name)
    for dtype, name in torch.storage._dtype_to_storage_type_map().items()
}
_ORDINARY = set(_KINDS) - torch.storage._new_dtypes() - {torch.complex64, torch.complex128}


class _Stored:
    """Stands for the storage of an ordinary tensor."""

    __slots__ = ("identity",)

    def __init__(self, identity: tuple[Any, ...]) -> None:
        self.identity = identity


class TorchStructure(pickle.Pickler):
    """Pickles all but the storages into `content`; `storages` are these, in the order met."""

    def __init__(self) -> None:
        self.content = io.BytesIO()
        super().__init__(self.content, protocol=2)
        self.storages: list[torch.UntypedStorage] = []
        self._numbers: dict[int, str] = {}  # by the address of torch's own object
        self._types: dict[int, torch.dtype] = {}  # by the address of the bytes
        self._hooks: Any = None  # of the last ordinary tensor

    def reducer_override(self, obj: Any) -> Any:
        """Return what pickles an ordinary tensor, as torch does; all else pickles itself."""
        if obj is self._hooks:
            return collections.OrderedDict, ()  # as it does itself, in a tenth of the time
        if type(obj) is not torch.Tensor or not _is_ordinary(obj):
            return NotImplemented
        storage = obj.untyped_storage()
        count = storage.nbytes() // obj.dtype.itemsize
        stored = _Stored(self._identity(storage, obj.dtype, _KINDS[obj.dtype], count))
        place = (stored, obj.storage_offset(), tuple(obj.shape), obj.stride())
        self._hooks = collections.OrderedDict()  # one for each: torch puts hooks into it
        return torch._utils._rebuild_tensor_v2, (*place, obj.requires_grad, self._hooks)

    def persistent_id(self, obj: Any) -> tuple[Any, ...] | None:
        """Return what stands for a storage; None for all else."""
        kind = type(obj)
        if kind in _NONE:  # first: this is called for each integer as well
            return None
        if kind is _Stored:
            identity: tuple[Any, ...] = obj.identity
            return identity
        if not isinstance(obj, _STORAGES):
            return None
        if isinstance(obj, torch.storage.TypedStorage):
            storage, dtype = obj._untyped_storage, obj.dtype
            named = getattr(torch, obj._pickle_storage_type())  # type: ignore[no-untyped-call]
            return self._identity(storage, dtype, named, storage.nbytes() // dtype.itemsize)
        return self._identity(obj, torch.uint8, torch.UntypedStorage, obj.nbytes())

    def _identity(
        self, storage: torch.UntypedStorage, dtype: torch.dtype, kind: Any, count: int
    ) -> tuple[Any, ...]:
        address = storage.data_ptr()
        if address and self._types.setdefault(address, dtype) != dtype:
            raise RuntimeError(
                "Cannot save multiple tensors or storages that view the same data as different "
                "types"  # torch's own words
            )
        number = self._numbers.get(storage._cdata)
        if number is None:
            number = self._numbers[storage._cdata] = str(len(self.storages))
            self.storages.append(storage)
        return ("storage", kind, number, torch.serialization.location_tag(storage), count)


def _is_ordinary(tensor: torch.Tensor) -> bool:
    """Return whether a tensor is a view of a storage and nothing else."""
    return (
        tensor.layout is torch.strided
        and (tensor.is_cpu or tensor.is_cuda)
        and tensor.dtype in _ORDINARY
        and tensor._backward_hooks is None
        and not tensor.is_nested
        and not tensor.is_neg()
        and not tensor.__dict__
    )
