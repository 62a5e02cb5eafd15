"""Processes to be killed by the hundred, each there within milliseconds: forked, imports done.

with Forks("import torch") as forks, forks.start("print(sys.argv[1], flush=True)", "word") as fork:
    fork.said.readline()
    forks.kill(fork)

    python -m curitorch.external.stores.testing.forks 5 "import torch"

is the process that they are forked from. On the socket that it inherits, 5 here, it is told what
to start, a JSON list of code and words, with the descriptor that this is to speak to; or what to
kill, a process id. It answers with the process id, and ends with the socket.
"""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NoReturn, Self, TextIO

LONGEST = 1 << 16  # bytes of a message
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}  # or forking would not be safe


@dataclass(frozen=True)
class Fork:
    """One process; `said` is what it prints, and ends when it is dead."""

    pid: int
    said: TextIO


class Forks:
    """Starts and kills processes. A context; safe to use from several threads.

    Args:
        before: Python code that is run first, once for all: imports.
        words: `before` finds them in `sys.argv[1:]`.
    """

    def __init__(self, before: str, *words: str) -> None:
        self._before = [before, *words]
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        self._asked, theirs = socket.socketpair()
        with theirs:
            number = theirs.fileno()
            command = [sys.executable, "-m", __name__, str(number), *self._before]
            environment = {**os.environ, **ONE_THREAD}
            self._process = subprocess.Popen(command, pass_fds=[number], env=environment)
        return self

    def __exit__(self, *exception: object) -> None:
        self._asked.close()
        self._process.wait()

    @contextlib.contextmanager
    def start(self, code: str, *words: str) -> Iterator[Fork]:
        """Do what `python -c code words` does; the process is dead at the end of the context."""
        reading, writing = os.pipe()
        with os.fdopen(reading, encoding="utf-8") as said:
            try:
                fork = Fork(self._ask([code, *words], [writing]), said)
            finally:
                os.close(writing)
            try:
                yield fork
            finally:
                self.kill(fork)

    def kill(self, fork: Fork) -> None:
        """Send SIGKILL and wait for the end; nothing happens to one that is dead."""
        self._ask(fork.pid, [])

    def _ask(self, request: object, descriptors: list[int]) -> int:
        with self._lock:
            socket.send_fds(self._asked, [json.dumps(request).encode()], descriptors)
            return int(self._asked.recv(LONGEST))


def serve(asked: socket.socket) -> None:
    """Start and kill processes until `asked` ends."""
    living: set[int] = set()
    while True:
        data, descriptors, _, _ = socket.recv_fds(asked, LONGEST, 1)
        if not data:
            break
        request = json.loads(data)
        if isinstance(request, int):
            pid = request
            if pid in living:
                living.remove(pid)
                _kill(pid)
        else:
            pid = os.fork()
            if pid == 0:
                asked.close()
                _run(descriptors[0], *request)
            living.add(pid)
            os.close(descriptors[0])
        asked.send(str(pid).encode())
    for pid in living:
        _kill(pid)


def _run(out: int, code: str, *words: str) -> NoReturn:
    """Be the new process, which prints to `out`."""
    try:
        os.dup2(out, 1)
        os.close(out)
        sys.argv[1:] = words
        exec(code, {"__name__": "__main__", "sys": sys})
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stdout.flush()
        os._exit(0)


def _kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


if __name__ == "__main__":
    connection = socket.socket(fileno=int(sys.argv.pop(1)))
    exec(sys.argv.pop(1), {"sys": sys})
    serve(connection)
