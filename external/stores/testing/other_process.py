"""A store in a process of its own: what it is pickled to is opened there.

    python -m curitorch.external.stores.testing.other_process put|hold

It reads a pickled pair, the store and what is to be done, and writes what came of it, pickled.
`hold` then keeps the lease until its standard input ends, or it is killed.
"""

import contextlib
import pickle
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from ..store import Lease, Store, StoredCheckpoint


def put_elsewhere(
    store: Store, step: int, files: Mapping[str, Path], **options: Any
) -> StoredCheckpoint:
    """Call `store.put` in another process.

    Raises:
        Exception: Whatever it raised there.
    """
    with _started("put", store, (step, files, options)) as process:
        stored: StoredCheckpoint = _answer(process)
        return stored


@contextlib.contextmanager
def lease_elsewhere(store: Store, holder: str) -> Iterator[tuple[Lease, "subprocess.Popen[bytes]"]]:
    """Lease `store` in another process, for as long as the context lasts or that process lives."""
    with _started("hold", store, holder) as process:
        yield _answer(process), process


@contextlib.contextmanager
def _started(task: str, store: Store, what: object) -> Iterator["subprocess.Popen[bytes]"]:
    command = [sys.executable, "-m", __name__, task]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdin is not None
            process.stdin.write(pickle.dumps((store, what)))
            process.stdin.flush()
            yield process
        finally:
            process.kill()


def _answer(process: "subprocess.Popen[bytes]") -> Any:
    assert process.stdout is not None
    answer = pickle.load(process.stdout)
    if isinstance(answer, Exception):
        raise answer
    return answer


def _put(given: IO[bytes], taken: IO[bytes]) -> None:
    store, (step, files, options) = pickle.load(given)
    answer: object
    with store:
        try:
            answer = store.put(step, files, **options)
        except Exception as error:
            answer = error
    taken.write(pickle.dumps(answer))


def _hold(given: IO[bytes], taken: IO[bytes]) -> None:
    store, holder = pickle.load(given)
    with store, store.lease(holder) as lease:
        taken.write(pickle.dumps(lease))
        taken.flush()
        given.read()


if __name__ == "__main__":
    {"put": _put, "hold": _hold}[sys.argv[1]](sys.stdin.buffer, sys.stdout.buffer)
