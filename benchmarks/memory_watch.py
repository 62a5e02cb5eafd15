"""The peak of a process' memory, with its children's: a child that looks every few milliseconds.

python benchmarks/memory_watch.py PID     prints the bytes when its input is closed
"""

import os
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil


class MemoryWatch:
    """A context; afterwards `peak` is the most that was used at a time, in bytes.

    Counted is each process' own memory, its share of the files that it maps, and files in memory
    (memfd) once, however many processes have them.
    """

    def __init__(self) -> None:
        self.peak = 0

    def __enter__(self) -> Self:
        command = [sys.executable, __file__, str(psutil.Process().pid)]
        self._child = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._child.stdout is not None
        self._child.stdout.readline()  # it looks from here on
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.peak = int(self._child.communicate()[0])


def main(pid: int) -> None:
    """Look until the input is closed."""
    ended = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()
    process, peak = psutil.Process(pid), 0
    print("looking", flush=True)
    while not ended.is_set():
        with suppress(psutil.Error):
            family = [process, *process.children(recursive=True)]
            family = [each for each in family if each.pid != os.getpid()]
            memory: dict[int, int] = {}
            for each in family:
                memory |= _files_in_memory(each)
            peak = max(peak, sum(map(_own, family)) + sum(memory.values()))
        time.sleep(0.005)
    print(peak)


def _own(process: psutil.Process) -> int:
    with suppress(OSError):
        lines = Path(f"/proc/{process.pid}/smaps_rollup").read_text().splitlines()
        shares = (line.split() for line in lines if line.startswith(("Pss_Anon:", "Pss_File:")))
        return sum(int(share[1]) << 10 for share in shares)
    return 0


def _files_in_memory(process: psutil.Process) -> dict[int, int]:
    """Return the bytes of each memfd, by its inode."""
    found = {}
    with suppress(OSError):
        for path in Path(f"/proc/{process.pid}/fd").iterdir():
            with suppress(OSError):
                if str(path.readlink()).startswith("/memfd:"):
                    about = path.stat()
                    found[about.st_ino] = about.st_blocks * 512
    return found


if __name__ == "__main__":
    main(int(sys.argv[1]))
