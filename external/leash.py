"""A leash: a process that gets SIGTERM when its parent dies, however the parent died.

`kill -9` of an experiment must not leave trainers behind. Linux only (prctl); elsewhere the leash
is not there, and the next run of the same experiment ends what was left.

    python -I leash.py PARENT_PID COMMAND…      becomes COMMAND, on a leash to PARENT_PID
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def follow_parent(parent: int, by: int = signal.SIGTERM) -> None:
    """Ask for the signal `by` when the process `parent`, our parent, ends; at once if it has."""
    if not sys.platform.startswith("linux"):
        return
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, by, 0, 0, 0)
    if os.getppid() != parent:
        os.kill(os.getpid(), by)


if __name__ == "__main__":
    follow_parent(int(sys.argv[1]))
    os.execvp(sys.argv[2], sys.argv[2:])
