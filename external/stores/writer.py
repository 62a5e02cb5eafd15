"""The helper process that writes staged checkpoints: its own interpreter, no torch, 15 MB.

It shares no interpreter lock with training, and lives on when the trainer is killed: what was
staged still lands. It ignores SIGINT and SIGTERM, and ends when the trainer's socket is closed and
everything it was given is written.

    python -I -S writer.py SOCKET_DESCRIPTOR

Each request is one JSON line with the staging memory's descriptor beside it:
    {"id": 7, "size": 90210, "path": "/runs/a/step-00000120.ckpt"}
and each reply one line:
    {"id": 7, "bytes": 90210, "checksum": "sha256:9f86…"}
    {"id": 7, "error": "…", "errno": 28}
"""

import contextlib
import hashlib
import json
import mmap
import os
import signal
import socket
import sys
import threading
from typing import Any

PIECE = 8 << 20  # bytes of one write; large and aligned, as O_DIRECT wants it
PAGE = 4096


def serve(connection: socket.socket) -> None:
    """Write what is asked for, one after the other, until the other end is closed."""
    pending = b""
    descriptors: list[int] = []
    while True:
        try:
            data, received, _, _ = socket.recv_fds(connection, 65536, 8)
        except OSError:
            return
        if not data:
            return
        descriptors += received
        *lines, pending = (pending + data).split(b"\n")
        for line in lines:
            reply = _answer(json.loads(line), descriptors.pop(0))
            with contextlib.suppress(
                OSError
            ):  # the trainer is gone: its file is there all the same
                connection.sendall(json.dumps(reply).encode() + b"\n")


def _answer(request: dict[str, Any], descriptor: int) -> dict[str, Any]:
    try:
        checksum = write_file(request["path"], descriptor, request["size"])
    except OSError as error:
        return {"id": request["id"], "error": str(error), "errno": error.errno}
    finally:
        os.close(descriptor)
    return {"id": request["id"], "bytes": request["size"], "checksum": checksum}


def write_file(path: str, descriptor: int, size: int) -> str:
    """Write `size` bytes of the memory `descriptor` to `path`, whole and durable.

    Returns its checksum as manifests have it, computed while it is written.

    Raises:
        OSError: It could not be written; what was at `path` is still there.
    """
    folder = os.path.dirname(path) or "."  # noqa: PTH120 - pathlib would double the start-up time
    temporary = os.path.join(folder, f".incomplete-{os.getpid()}-{os.path.basename(path)}")  # noqa: PTH118, PTH119
    rounded = -(-size // PAGE) * PAGE
    digest = hashlib.sha256()
    with mmap.mmap(descriptor, rounded, prot=mmap.PROT_READ) as memory:
        view = memoryview(memory)
        hashing = threading.Thread(target=_hash, args=(digest, view, size))
        hashing.start()
        try:
            _write(temporary, view, size, rounded)
            os.replace(temporary, path)  # noqa: PTH105
            _sync_folder(folder)
        except OSError:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)  # noqa: PTH108
            raise
        finally:
            hashing.join()
            view.release()
    return "sha256:" + digest.hexdigest()


def _hash(digest: Any, view: memoryview, size: int) -> None:
    for start in range(0, size, PIECE):
        digest.update(view[start : min(start + PIECE, size)])  # releases the interpreter lock


def _write(temporary: str, view: memoryview, size: int, rounded: int) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    try:
        target = os.open(temporary, flags | os.O_DIRECT, 0o666)  # past the page cache
    except OSError:  # a file system without direct writes, such as tmpfs
        target = os.open(temporary, flags, 0o666)
    try:
        position = 0
        while position < rounded:
            position += os.write(target, view[position : min(position + PIECE, rounded)])
        os.ftruncate(target, size)
        os.fsync(target)
    finally:
        os.close(target)


def _sync_folder(folder: str) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


if __name__ == "__main__":
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    serve(socket.socket(fileno=int(sys.argv[1])))
