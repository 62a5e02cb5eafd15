"""Saving in the background: stage a checkpoint, have it written, learn how that went."""

import contextlib
import json
import os
import pickle
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from ..store import StoredCheckpoint, StoreError
from . import writer
from .deferred import DeferredCopy
from .owned import OptimizerWatch
from .staging import StagingBuffer
from .target import Target
from .torch_image import lay_out


@dataclass(frozen=True)
class _Pending:
    number: int
    what: str
    then: Callable[[StoredCheckpoint], None]


class BackgroundWriter:
    """Writes checkpoints while training goes on; one at a time, in order, in bounded memory.

    Not to be used by two threads at once. Linux only: it needs memfd and descriptors over sockets.

    An error in the background is raised by the next call, whichever it is, once.

    Args:
        target: Where checkpoints go; it is pickled, and used by the process that writes.
        watch: Copy the tensors of the optimizers that it knows only when they are about to change.
    """

    def __init__(self, target: Target, *, watch: OptimizerWatch | None = None) -> None:
        self._target = target
        self._watch = watch
        self._copy: DeferredCopy | None = None
        self._buffer = StagingBuffer()
        self._pending: deque[_Pending] = deque()
        self._count = 0
        self._received = b""
        self._socket: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def save(
        self,
        obj: object,
        request: Mapping[str, Any],
        *,
        what: str,
        then: Callable[[StoredCheckpoint], None] = lambda kept: None,
    ) -> None:
        """Stage `obj` and return; its tensors may change from then on, or after `hold`.

        Waits for the save before, whose staging memory is used again.

        Args:
            obj: What `torch.save` would take.
            request: For the target, plain JSON data.
            what: Names the save in errors, e.g. `Saving step 120`.
            then: Called in the caller's thread, by a later call, when the checkpoint is durable.

        Raises:
            OSError, StoreError: An earlier save failed; the checkpoints before are as they were.
            MemoryError: There is no memory to stage it.
        """
        self.wait()
        image = lay_out(obj)
        on_cuda = any(device.type == "cuda" for device in image.gpus())
        buffer = self._buffer.reserve(image.size, pinned=on_cuda)
        connection = self._connection()
        self._count += 1
        line = json.dumps({"id": self._count, "request": dict(request)}).encode() + b"\n"

        def send() -> None:
            sent = socket.send_fds(connection, [line], [self._buffer.descriptor])
            connection.sendall(line[sent:])

        if self._watch is not None:
            self._copy = DeferredCopy(image, buffer, self._watch.owned(), then=send)
            self._watch.pending = self._copy
            self._pending.append(_Pending(self._count, what, then))
            return
        image.copy_into(buffer)
        self._pending.append(_Pending(self._count, what, then))
        try:
            send()
        except OSError:
            self._writer_died()

    def hold(self) -> None:
        """Return when every tensor may change; optimizers ask for that by themselves."""
        if self._copy is not None:
            self._copy.hold()

    @property
    def is_busy(self) -> bool:
        """Whether a save is under way, as far as `poll` and `wait` have seen."""
        return bool(self._pending)

    def poll(self) -> None:
        """Take note of what is done, without waiting.

        Raises:
            OSError, StoreError: A save failed.
        """
        if self._copy is not None and self._copy.is_running:
            return
        self._finish_copy()
        while self._pending and self._receive(block=False):
            pass

    def wait(self) -> None:
        """Wait until everything is durable.

        Raises:
            OSError, StoreError: A save failed.
        """
        self._finish_copy()
        while self._pending:
            self._receive(block=True)

    def close(self) -> None:
        """Wait, end the writer process and give the memory back.

        Raises:
            OSError, StoreError: A save failed; all is put away nevertheless.
        """
        try:
            self.wait()
        finally:
            if self._socket is not None and self._process is not None:
                # Not only closed: a forked worker of a DataLoader may hold it open as well.
                with contextlib.suppress(OSError):
                    self._socket.shutdown(socket.SHUT_RDWR)
                self._socket.close()
                self._process.wait()
                self._socket = None
            self._buffer.close()

    def _connection(self) -> socket.socket:
        if self._socket is None:
            try:
                target = pickle.dumps(self._target)
            except (pickle.PicklingError, AttributeError, TypeError) as error:
                raise TypeError(
                    f"The process that writes needs the store pickled, which fails: {error}. "
                    "Save synchronously, or give the store a __reduce__."
                ) from error
            ours, theirs = socket.socketpair()
            with theirs:
                self._process = subprocess.Popen(
                    [sys.executable, "-P", "-m", writer.__name__, str(theirs.fileno())],
                    pass_fds=[theirs.fileno()],
                    stdin=subprocess.DEVNULL,
                    # What is importable here is so there: a store may be of the user's module.
                    env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
                    start_new_session=True,  # no Ctrl-C from the terminal
                )
            ours.sendall(writer.LENGTH.pack(len(target)) + target)
            self._socket = ours
        return self._socket

    def _finish_copy(self) -> None:
        if self._copy is None or self._watch is None:
            return
        copy, self._copy = self._copy, None
        self._watch.pending = None
        try:
            copy.finish()
        except StoreError as error:
            what = self._pending.pop().what
            raise type(error)(f"{what} failed: {error}") from error
        except OSError:
            self._writer_died()

    def _receive(self, *, block: bool) -> bool:
        """Take one reply; returns whether there was one."""
        connection = self._connection()
        while b"\n" not in self._received:
            try:
                # By the call, not the socket: a deferred copy may be sending through it.
                data = connection.recv(65536, 0 if block else socket.MSG_DONTWAIT)
            except BlockingIOError:
                return False
            except OSError:
                data = b""
            if not data:
                self._writer_died()
            self._received += data
        line, self._received = self._received.split(b"\n", 1)
        reply = json.loads(line)
        pending = self._pending.popleft()
        if "error" in reply:
            raise writer.raised(reply, what=pending.what)
        pending.then(writer.kept(reply))
        return True

    def _writer_died(self) -> NoReturn:
        lost = [pending.what for pending in self._pending]
        self._pending.clear()
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.close()
        self._socket, self._received = None, b""
        code = self._process.wait() if self._process is not None else None
        raise OSError(
            f"{', '.join(lost)} failed: the process that writes ended with {code} before it was "
            "done. The checkpoints before are as they were; the next save starts it anew."
        )
