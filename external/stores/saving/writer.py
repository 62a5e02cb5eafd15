"""The helper process that writes staged checkpoints: its own interpreter, without torch.

It shares no interpreter lock with training, and lives on when the trainer is killed: what was
staged still lands. It ignores SIGINT and SIGTERM, and ends when the trainer's socket is closed and
everything it was given is written.

    python -P -m curitorch.external.stores.saving.writer SOCKET_DESCRIPTOR

First comes the pickled target, its length before it; then each request is one JSON line, with the
staging memory's descriptor beside it:
    {"id": 7, "request": {"step": 120, "name": "model.ckpt", "details": {}}}
and each reply one line:
    {"id": 7, "sidecar": "{…}"}
    {"id": 7, "error": "…", "kind": "OSError", "errno": 28}
"""

import contextlib
import json
import os
import pickle
import signal
import socket
import struct
import sys
from pathlib import Path
from typing import Any

from .. import store as errors
from ..sidecar import from_json, to_json
from ..store import StoredCheckpoint
from .target import Target

LENGTH = struct.Struct("<Q")


def serve(connection: socket.socket) -> None:
    """Write what is asked for, one after the other, until the other end is closed."""
    target = _receive_target(connection)
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
            reply = _answer(target, json.loads(line), descriptors.pop(0))
            # When the trainer is gone, its checkpoint is there all the same.
            with contextlib.suppress(OSError):
                connection.sendall(json.dumps(reply).encode() + b"\n")


def _receive_target(connection: socket.socket) -> Target | Exception:
    """Return the target, or why it cannot be opened in this process."""
    with connection.makefile("rb", buffering=0) as stream:  # unbuffered: what follows has files
        (length,) = LENGTH.unpack(_read(stream, LENGTH.size))
        content = _read(stream, length)
    try:
        target: Target = pickle.loads(content)  # from the trainer that started this process
    except Exception as error:  # whatever a user's store raises
        return error
    return target


def _read(stream: Any, size: int) -> bytes:
    content = b""
    while len(content) < size:
        piece = stream.read(size - len(content))
        if not piece:
            sys.exit("The trainer ended before it said where checkpoints go.")
        content += piece
    return content


def _answer(target: Target | Exception, request: dict[str, Any], descriptor: int) -> dict[str, Any]:
    number = request["id"]
    try:
        if isinstance(target, Exception):
            raise errors.StoreError(
                f"The store cannot be opened in the process that writes ({target!r}). Define its "
                "class in a module, or save synchronously."
            ) from target
        kept = target.keep(Path(f"/proc/self/fd/{descriptor}"), request["request"])
    except Exception as error:  # all of it is the trainer's to know
        return {"id": number, **described(error)}
    finally:
        os.close(descriptor)
    return {"id": number, "sidecar": to_json(kept).decode()}


def described(error: Exception) -> dict[str, Any]:
    """Return what a reply says about `error`."""
    code = error.errno if isinstance(error, OSError) else None
    return {"error": str(error) or repr(error), "kind": type(error).__name__, "errno": code}


def raised(reply: dict[str, Any], *, what: str) -> Exception:
    """Return the error that a reply describes: an error of stores, or else an OSError."""
    sentence = f"{what} failed: {reply['error']}"
    kind = getattr(errors, reply["kind"], None)
    if isinstance(kind, type) and issubclass(kind, errors.StoreError):
        return kind(sentence)
    return OSError(reply["errno"], sentence) if reply["errno"] else OSError(sentence)


def kept(reply: dict[str, Any]) -> StoredCheckpoint:
    """Return the checkpoint of a reply."""
    return from_json(reply["sidecar"].encode(), where="The writer's reply")


if __name__ == "__main__":
    for _number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(_number, signal.SIG_IGN)
    serve(socket.socket(fileno=int(sys.argv[1])))
