"""Saving in the background: stage a checkpoint, have it written, learn how that went."""

import contextlib
import json
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from . import writer
from .staging import StagingBuffer
from .torch_image import lay_out


@dataclass(frozen=True)
class Written:
    """A file that is whole and durable."""

    path: Path
    bytes: int
    checksum: str


@dataclass(frozen=True)
class _Pending:
    number: int
    path: Path
    then: Callable[[Written], None]


class BackgroundWriter:
    """Writes checkpoints while training goes on; one at a time, in order, in bounded memory.

    Not to be used by two threads at once. Linux only: it needs memfd and descriptors over sockets.

    An error in the background is raised by the next call, whichever it is, once.
    """

    def __init__(self) -> None:
        self._buffer = StagingBuffer()
        self._pending: deque[_Pending] = deque()
        self._count = 0
        self._received = b""
        self._socket: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def save(
        self, obj: object, path: Path, *, then: Callable[[Written], None] = lambda written: None
    ) -> None:
        """Stage `obj` and return; its tensors may change from then on.

        Waits for the save before, whose staging memory is used again.

        Args:
            obj: What `torch.save` would take.
            path: Where the file goes; its folder exists.
            then: Called in the caller's thread, by a later call, when the file is durable.

        Raises:
            OSError: An earlier save failed; the checkpoints before it are as they were.
            MemoryError: There is no memory to stage it.
        """
        self.wait()
        image = lay_out(obj)
        buffer = self._buffer.reserve(image.size)
        image.copy_into(buffer)
        self._count += 1
        request = {"id": self._count, "size": image.size, "path": str(path.resolve())}
        line = json.dumps(request).encode() + b"\n"
        connection = self._connection()
        self._pending.append(_Pending(self._count, path, then))
        try:
            sent = socket.send_fds(connection, [line], [self._buffer.descriptor])
            connection.sendall(line[sent:])
        except OSError:
            self._writer_died()

    @property
    def is_busy(self) -> bool:
        """Whether a save is under way, as far as `poll` and `wait` have seen."""
        return bool(self._pending)

    def poll(self) -> None:
        """Take note of what is done, without waiting.

        Raises:
            OSError: A save failed.
        """
        while self._pending and self._receive(block=False):
            pass

    def wait(self) -> None:
        """Wait until everything is durable.

        Raises:
            OSError: A save failed.
        """
        while self._pending:
            self._receive(block=True)

    def close(self) -> None:
        """Wait, end the writer process and give the memory back.

        Raises:
            OSError: A save failed; all is put away nevertheless.
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
            ours, theirs = socket.socketpair()
            with theirs:
                self._process = subprocess.Popen(
                    [sys.executable, "-I", "-S", writer.__file__, str(theirs.fileno())],
                    pass_fds=[theirs.fileno()],
                    stdin=subprocess.DEVNULL,
                    start_new_session=True,  # no Ctrl-C from the terminal
                )
            self._socket = ours
        return self._socket

    def _receive(self, *, block: bool) -> bool:
        """Take one reply; returns whether there was one."""
        connection = self._connection()
        connection.setblocking(block)
        while b"\n" not in self._received:
            try:
                data = connection.recv(65536)
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
            raise OSError(reply["errno"], f"Saving '{pending.path}' failed: {reply['error']}")
        pending.then(Written(pending.path, reply["bytes"], reply["checksum"]))
        return True

    def _writer_died(self) -> NoReturn:
        lost = [str(pending.path) for pending in self._pending]
        self._pending.clear()
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.close()
        self._socket, self._received = None, b""
        code = self._process.wait() if self._process is not None else None
        raise OSError(
            f"The process that writes checkpoints ended with {code} before it had written "
            f"{', '.join(lost)}. The checkpoints before are as they were; the next save "
            "starts it anew."
        )
