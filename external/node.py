r"""What `srun` starts on each node of a job: torchrun, and somebody who passes a stop to its ranks.

    srun … python -m curitorch.external.node python -m torch.distributed.run …

A line "stop" on standard input, or SIGTERM, asks the ranks of this node to save and stop. Only the
ranks: torchrun would give them 30 s, and the worker processes of their loaders would die of the
signal. A line "stacks" has them write where their threads are into their logs.
"""

import os
import signal
import subprocess
import sys
import threading
from types import FrameType

import psutil

from .atomic import whole_file
from .environment import NODE, launched
from .layout import Layout
from .rank import ask_for_stacks
from .rank_report import read_reports

POLL_SECONDS = 0.2


class Node:
    """torchrun on this machine, as a child process.

    Args:
        command: torchrun's words.
    """

    def __init__(self, command: list[str]) -> None:
        self._asked = threading.Event()
        self._asked_for_stacks = threading.Event()
        self._told: set[int] = set()
        signal.signal(signal.SIGTERM, self._remember)
        # scancel signals every process there is. torchrun is not to hear it, nor to start those
        # again that stopped, see `rank`; before torch 2.9 it knows no such choice.
        heard = {"PET_SIGNALS_TO_HANDLE": "SIGINT,SIGHUP,SIGQUIT"}
        self._torchrun = subprocess.Popen(
            command,
            env={**os.environ, **heard, NODE: "1"},
            stdin=subprocess.DEVNULL,
            preexec_fn=_ignore_sigterm,  # inherited; the ranks listen again
        )

    def run(self) -> int:
        """Wait for torchrun, passing on what is asked; returns its exit code."""
        threading.Thread(target=self._listen, daemon=True).start()
        while True:
            try:
                code = self._torchrun.wait(timeout=POLL_SECONDS)
                return code if code >= 0 else 128 - code
            except subprocess.TimeoutExpired:
                if self._asked.is_set():
                    self._tell()
                if self._asked_for_stacks.is_set():
                    self._asked_for_stacks.clear()
                    ask_for_stacks(ranks_below(self._torchrun.pid))

    def _tell(self) -> None:
        """Send SIGTERM to each rank here, once."""
        for pid in ranks_below(self._torchrun.pid) - self._told:
            self._told.add(pid)
            try:
                os.kill(pid, signal.SIGTERM)
            except ProcessLookupError:  # it ended meanwhile
                continue

    def _listen(self) -> None:
        """Wait for lines on standard input; its end means nothing."""
        for line in sys.stdin or ():
            event = self._asked_for_stacks if line.strip() == "stacks" else self._asked
            event.set()

    def _remember(self, number: int, frame: FrameType | None) -> None:
        self._asked.set()


def note_end(code: int) -> None:
    """Tell the job's script, on the first node, how torchrun ended there: `ended` in the logs."""
    launch = launched()
    if launch is not None and os.environ.get("SLURM_PROCID") == "0":
        with whole_file(Layout(launch.run).logs(launch.attempt) / "ended") as temporary:
            temporary.write_text(f"{code}\n", encoding="utf-8")


def ranks_below(pid: int) -> set[int]:
    """Return the ranks that have begun among the descendants of a process."""
    launch = launched()
    if launch is None:
        return set()
    reports = read_reports(Layout(launch.run).logs(launch.attempt))
    running = {report.pid for report in reports if report.ended is None}
    try:
        return running & {child.pid for child in psutil.Process(pid).children(recursive=True)}
    except psutil.Error:  # it ended meanwhile
        return set()


def _ignore_sigterm() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


if __name__ == "__main__":
    status = Node(sys.argv[1:]).run()
    note_end(status)
    sys.exit(status)
