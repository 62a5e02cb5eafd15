"""A copy that goes on while training does, until an optimizer wants to change the tensors.

What may change at any time is copied at once: buffers, values of Python, whatever no optimizer
owns. The tensors of optimizers are copied by a thread, during the next forward and backward pass;
`hold` returns when they may change. That nothing changed them before is checked, not believed.
"""

import ctypes
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch

from ..store import StoreError
from .owned import storage_key
from .side_stream import SideStream
from .torch_image import Piece, TorchImage, memory_of

_SMALL = 64 << 10  # bytes; to copy less at once costs as little as to watch it
_SAMPLES = 64  # words of eight bytes that are compared in each storage


class TensorsChanged(StoreError):
    """Tensors were changed before their copy was made; the checkpoint was not written."""


@dataclass(frozen=True)
class _Watched:
    """A piece to be copied, and what tells whether its tensors were changed since."""

    piece: Piece
    tensors: list[torch.Tensor]
    versions: list[int]
    sample: bytes

    def is_unchanged(self) -> bool:
        return self.versions == _versions(self.tensors) and self.sample == _sample(self.piece)


class DeferredCopy:
    """Copies `image` into `buffer`: partly when it is made, the rest in a thread.

    Args:
        image: What to copy; its tensors may change when `hold` has returned.
        buffer: At least as large, and not read or changed before `then` or `finish`.
        owned: Tensors that only an optimizer changes, by their storage, as `OptimizerWatch` knows.
        then: Called in the thread when all is in the buffer and is of one moment.
    """

    def __init__(
        self,
        image: TorchImage,
        buffer: Any,
        owned: Mapping[int, list[torch.Tensor]],
        *,
        then: Callable[[], None] = lambda: None,
    ) -> None:
        self._target: torch.Tensor | None = torch.frombuffer(buffer, dtype=torch.uint8)
        self._then = then
        self._later: list[_Watched] = []
        at_once: list[Piece] = []
        gpus = image.gpus()
        for piece in image.pieces:
            tensors = _owners(piece, owned)
            if tensors and (tensors[0].is_cpu or tensors[0].device in gpus):
                self._later.append(_Watched(piece, tensors, _versions(tensors), _sample(piece)))
            else:
                at_once.append(piece)
        self.bytes = sum(watched.piece.size for watched in self._later)  # left to the thread
        image.copy_into(buffer, at_once, wait=False)
        self._streams = {device: SideStream(device) for device in gpus}  # behind that
        self._checking = threading.Lock()
        self._changed: list[_Watched] | None = None  # not known yet
        self._may_change = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="curitorch-deferred-copy")
        self._thread.start()

    @property
    def is_running(self) -> bool:
        """Whether `finish` would wait."""
        return self._thread.is_alive()

    def hold(self) -> None:
        """Return when the tensors may change; what this thread asks of a GPU then waits for it."""
        self._may_change.wait()
        if self._streams:
            self._check()
            for stream in self._streams.values():
                stream.hold()

    def finish(self) -> None:
        """Wait until all is copied, and `then` has returned.

        Raises:
            TensorsChanged: Something changed the tensors without asking; raised once.
            Exception: What `then` raised.
        """
        self._thread.join()
        error, self._error = self._error, None
        if error is not None:
            raise error

    def _run(self) -> None:
        try:
            self._copy()
            if not self._streams:
                self._check()
            self._may_change.set()
            for stream in self._streams.values():
                stream.wait()
            if changed := self._check():
                raise TensorsChanged(_sentence(changed))
            self._then()
        except BaseException as error:  # raised by finish
            self._error = error
        finally:
            self._may_change.set()
            # No tensor lives longer than training wants it, and the buffer can be made larger.
            self._later, self._target = [], None

    def _copy(self) -> None:
        assert self._target is not None
        on_cpu: list[Piece] = []
        on_device: dict[torch.device, list[Piece]] = {device: [] for device in self._streams}
        for watched in self._later:
            on_device.get(watched.tensors[0].device, on_cpu).append(watched.piece)
        for device, stream in self._streams.items():
            stream.copy(on_device[device], self._target)
        start = self._target.data_ptr()
        for piece in on_cpu:
            assert not isinstance(piece.data, bytes)
            # By this thread alone: the other cores are training's now.
            ctypes.memmove(start + piece.offset, piece.data.data_ptr(), piece.size)

    def _check(self) -> list[_Watched]:
        """Return what was changed up to the first call of this."""
        with self._checking:
            if self._changed is None:
                self._changed = [w for w in self._later if not w.is_unchanged()]
            return self._changed


def _owners(piece: Piece, owned: Mapping[int, list[torch.Tensor]]) -> list[torch.Tensor]:
    """Return the tensors that make up all of `piece`; none if it is small or only partly owned."""
    if isinstance(piece.data, bytes) or piece.size < _SMALL:
        return []
    tensors = owned.get(storage_key(piece.data), [])
    return tensors if sum(t.nbytes for t in tensors) >= piece.size else []


def _versions(tensors: list[torch.Tensor]) -> list[int]:
    """Return torch's counts of changes in place, which `.data` and fused steps do not count."""
    with suppress(RuntimeError):  # tensors of inference mode have none
        return [tensor._version for tensor in tensors]
    return []


def _sample(piece: Piece) -> bytes:
    """Return some of the bytes on the CPU, to see a change that is not counted."""
    assert not isinstance(piece.data, bytes)
    if piece.data.device.type != "cpu":
        return b""
    words = memory_of(piece.data)[: piece.size // 8 * 8].cast("q")
    return words[:: max(1, len(words) // _SAMPLES)].tobytes()


def _sentence(changed: list[_Watched]) -> str:
    shapes = ", ".join(str(tuple(w.tensors[0].shape)) for w in changed[:3])
    return (
        f"{len(changed)} tensors (of shape {shapes}{', …' if len(changed) > 3 else ''}) were "
        "changed before their deferred copy was made, by something other than an optimizer's step; "
        "the checkpoint was not written. Wait for the saver before such changes, or save without "
        "deferred=True."
    )
