"""The ways of saving that checkpoint_save.py measures: ours, torch's, Lightning's."""

import mmap
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
from lightning.pytorch.plugins import AsyncCheckpointIO as LightningAsyncCheckpointIO
from lightning.pytorch.plugins import TorchCheckpointIO
from torch.distributed.checkpoint.staging import DefaultStager, StagingOptions
from training import tensors_of

from curitorch.external.checksum import Checksum
from curitorch.external.stores import AsyncCheckpointIO, LocalStore, Saver, VerifiedCheckpointIO

State = dict[str, Any]
PIECE = 8 << 20


class Peer:
    """A way of saving: `save` is what training waits for, `is_done` and `wait` come after."""

    syncs = True  # whether what is there after `wait` is durable

    def save(self, state: State, path: Path) -> None:
        """Save `state`; training goes on when this returns."""
        raise NotImplementedError

    def is_done(self) -> bool:
        """Return whether nothing is under way."""
        return True

    def wait(self) -> None:
        """Wait until the file is visible, and durable if `syncs`."""

    def close(self) -> None:
        """Put everything away."""


class Memcpy(Peer):
    """A copy into memory that is there already: no save can stop training for less."""

    def __init__(self) -> None:
        self._prepared: list[torch.Tensor] = []

    def save(self, state: State, path: Path) -> None:
        """See `Peer`."""
        tensors = tensors_of(state)
        if not self._prepared:
            self._prepared = [torch.ones_like(tensor) for tensor in tensors]
        for target, tensor in zip(self._prepared, tensors, strict=True):
            target.copy_(tensor)


class RawDirect(Peer):
    """Bytes of the same number, written past the page cache and hashed beside."""

    def __init__(self) -> None:
        self._memory: mmap.mmap | None = None

    def save(self, state: State, path: Path) -> None:
        """See `Peer`."""
        size = sum(tensor.nbytes for tensor in tensors_of(state)) // PIECE * PIECE
        if self._memory is None:
            self._memory = mmap.mmap(-1, size)
            torch.frombuffer(self._memory, dtype=torch.uint8).random_(0, 255)
        view, digest = memoryview(self._memory), Checksum()
        pieces = [view[start : start + PIECE] for start in range(0, size, PIECE)]
        hashing = threading.Thread(target=lambda: [digest.update(piece) for piece in pieces])
        hashing.start()
        target = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_DIRECT)
        for number, piece in enumerate(pieces):
            os.pwrite(target, piece, number * PIECE)
        os.fsync(target)
        os.close(target)
        hashing.join()


class TorchSave(Peer):
    """`torch.save`."""

    syncs = False

    def save(self, state: State, path: Path) -> None:
        """See `Peer`."""
        torch.save(state, path)


class Plugin(Peer):
    """A synchronous plugin for Lightning."""

    def __init__(self, plugin: Any, *, syncs: bool) -> None:
        self._plugin = plugin
        self.syncs = syncs

    def save(self, state: State, path: Path) -> None:
        """See `Peer`."""
        self._plugin.save_checkpoint(state, path)


class LightningAsync(Peer):
    """Lightning's asynchronous plugin; only its end says that it is done."""

    syncs = False

    def __init__(self) -> None:
        self._plugin: Any = None
        self._path = Path()

    def save(self, state: State, path: Path) -> None:
        """See `Peer`."""
        self._path = path
        self._plugin = LightningAsyncCheckpointIO(TorchCheckpointIO())
        self._plugin.save_checkpoint(state, path)

    def is_done(self) -> bool:
        """See `Peer`."""
        return self._path.exists()  # renamed there when it is whole

    def wait(self) -> None:
        """See `Peer`."""
        self._plugin.teardown()


class DistributedAsync(Peer):
    """torch.distributed.checkpoint, asynchronous in a thread, its staging memory kept."""

    def __init__(self) -> None:
        self._stager = DefaultStager(StagingOptions(False, False, False, False))
        self._future: Future[Any] | None = None

    def save(self, state: State, path: Path) -> None:
        """See `Peer`."""
        self._future = dcp.async_save(
            state, checkpoint_id=path, async_stager=self._stager, no_dist=True
        )

    def is_done(self) -> bool:
        """See `Peer`."""
        return self._future is None or _future(self._future).done()

    def wait(self) -> None:
        """See `Peer`."""
        if self._future is not None:
            _future(self._future).result()


class OursAsync(Peer):
    """AsyncCheckpointIO at a path."""

    def __init__(self, *, deferred: bool = False) -> None:
        self._plugin = AsyncCheckpointIO(deferred=deferred)
        self._busy = False

    def save(self, state: State, path: Path) -> None:
        """See `Peer`."""
        self._plugin.save_checkpoint(state, path)
        self._busy = True

    def is_done(self) -> bool:
        """See `Peer`."""
        self._plugin.poll()
        writer = self._plugin._writer
        return writer is None or not writer.is_busy

    def wait(self) -> None:
        """See `Peer`."""
        self._plugin.wait()

    def close(self) -> None:
        """See `Peer`."""
        self._plugin.teardown()


class OursStore(Peer):
    """A Saver over a local store."""

    def __init__(self, **options: Any) -> None:
        self._options = options
        self._saver: Saver | None = None
        self._step = 0

    def save(self, state: State, path: Path) -> None:
        """See `Peer`."""
        if self._saver is None:
            self._saver = Saver(LocalStore(path.parent / "store"), **self._options)
        self._step += 1
        self._saver.save(self._step, state)

    def is_done(self) -> bool:
        """See `Peer`."""
        assert self._saver is not None
        self._saver.poll()
        return not self._saver.is_busy

    def wait(self) -> None:
        """See `Peer`."""
        assert self._saver is not None
        self._saver.wait()

    def close(self) -> None:
        """See `Peer`."""
        if self._saver is not None:
            self._saver.close()


PEERS: dict[str, Callable[[], Peer]] = {
    "memcpy into prepared memory": Memcpy,
    "raw direct write + checksum": RawDirect,
    "torch.save": TorchSave,
    "Lightning TorchCheckpointIO": lambda: Plugin(TorchCheckpointIO(), syncs=False),
    "Lightning AsyncCheckpointIO": LightningAsync,
    "torch DCP async, cached": DistributedAsync,
    "VerifiedCheckpointIO": lambda: Plugin(VerifiedCheckpointIO(), syncs=True),
    "AsyncCheckpointIO": OursAsync,
    "AsyncCheckpointIO, deferred": lambda: OursAsync(deferred=True),
}
ASYNCHRONOUS = [
    "Lightning AsyncCheckpointIO",
    "torch DCP async, cached",
    "AsyncCheckpointIO",
    "AsyncCheckpointIO, deferred",
]


def _future(response: Any) -> Future[Any]:
    return getattr(response, "upload_completion", response)
