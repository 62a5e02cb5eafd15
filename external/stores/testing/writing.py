"""A process that puts checkpoints for ever, to be killed. It leases the store and prunes.

    python -m curitorch.external.stores.testing.writing local root=/tmp/ckpt /tmp/files 1

It says `putting 1` before a put and `stored 1` after it.
"""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from ..kinds import open_store
from ..retention import Retention
from ..store import Lease, LeaseLost, Store

LARGE = 1_000_000  # bytes
PATIENCE_SECONDS = 60.0


def write_for_ever(kind: str, settings: str, folder: Path, first_step: int) -> None:
    """Put one checkpoint after the other, each with a large and a small file."""
    large, small = folder / f"large {os.getpid()}", folder / f"small {os.getpid()}"
    with (
        open_store(kind, settings) as store,
        wait_for_lease(store, f"writer-{os.getpid()}", PATIENCE_SECONDS) as lease,
    ):
        step = first_step
        while True:
            large.write_bytes(os.urandom(1000) * (LARGE // 1000))
            small.write_text(str(step))
            say(f"putting {step}")
            store.put(step, {"model.ckpt": large, "small": small}, lease=lease)
            say(f"stored {step}")
            store.prune(Retention(newest=2), lease=lease)
            step += 1


@contextlib.contextmanager
def start_writer(
    kind: str, settings: str, folder: Path, *, first_step: int
) -> Iterator[subprocess.Popen[str]]:
    """Run `write_for_ever` in a process of its own, which is dead at the end of the context."""
    command = [sys.executable, "-m", __name__, kind, settings, str(folder), str(first_step)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
        try:
            yield writer
        finally:
            writer.kill()


@contextlib.contextmanager
def wait_for_lease(store: Store, holder: str, seconds: float) -> Iterator[Lease]:
    """Lease `store`, trying again for `seconds`: a dead holder's lease may have to run out."""
    until = time.monotonic() + seconds
    while True:
        with contextlib.ExitStack() as stack:
            try:
                lease = stack.enter_context(store.lease(holder))
            except LeaseLost:
                if time.monotonic() > until:
                    raise
                time.sleep(0.05)
                continue
            yield lease
            return


def say(words: str) -> None:
    """Print a line that the reader of the pipe gets at once."""
    sys.stdout.write(words + "\n")
    sys.stdout.flush()


def main() -> None:
    """Put what the command line says."""
    write_for_ever(sys.argv[1], sys.argv[2], Path(sys.argv[3]), int(sys.argv[4]))


if __name__ == "__main__":
    main()
