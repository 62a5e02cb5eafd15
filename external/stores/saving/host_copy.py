"""Copies within this machine's memory, by plain threads.

Torch's own threads wait for each other in a loop: on cores that others use as well, such as the
process that writes the save before, a copy by them takes several times as long.
"""

import ctypes
import threading
from collections.abc import Iterator

import torch

_PIECE = 4 << 20  # bytes; what a thread takes at a time
_THREADS = 4  # more than that few machines' memory feeds

Move = tuple[int, int, int]
"""Where to, where from, how many bytes: memory that lives until the copy is made."""


def copy(moves: list[Move]) -> None:
    """Make all copies; releases the interpreter lock meanwhile."""
    pieces = _Pieces(moves)
    size = sum(move[2] for move in moves)
    helpers = [
        threading.Thread(target=_work, args=(pieces,), name="curitorch-copying")
        for _ in range(min(_THREADS, torch.get_num_threads(), size // (2 * _PIECE)) - 1)
    ]
    for helper in helpers:
        helper.start()
    _work(pieces)
    for helper in helpers:
        helper.join()


def _work(pieces: "_Pieces") -> None:
    while (piece := pieces.take()) is not None:
        ctypes.memmove(*piece)


def _split(moves: list[Move]) -> Iterator[Move]:
    for target, source, size in moves:
        for start in range(0, size, _PIECE):
            yield target + start, source + start, min(_PIECE, size - start)


class _Pieces:
    """Hands out pieces to several threads."""

    def __init__(self, moves: list[Move]) -> None:
        self._pieces = _split(moves)
        self._lock = threading.Lock()

    def take(self) -> Move | None:
        with self._lock:
            return next(self._pieces, None)
