"""What every launched trainer process does before the trainer's own first line.

    python -m torch.distributed.run --nproc-per-node 2 -m -- curitorch.external.rank -m my.trainer …
    python -m torch.distributed.run --nproc-per-node 2 -m -- curitorch.external.rank train.py …

It follows its launcher into death, sends its whole output to the rank's log and records how the
program ended. Asked by a signal, it writes where its threads are. Without a stage around it runs
the program and nothing else.
"""

import contextlib
import faulthandler
import os
import re
import runpy
import signal
import sys
from collections.abc import Iterable
from pathlib import Path

from .environment import NODE, launched, ranks
from .layout import Layout
from .leash import follow_parent
from .rank_report import end_report, start_report
from .stop import EXIT_CODES

STACKS_SIGNAL: int | None = getattr(signal, "SIGRTMAX", None)
"""Makes a rank write the Python stacks of its threads into its log; nobody else uses it."""

_CAUGHT = re.compile(r"^SigCgt:\s*([0-9a-f]+)$", re.MULTILINE)


def main(words: list[str]) -> None:
    """Run the program that `words` name: `-m MODULE ARGUMENTS…` or `SCRIPT.py ARGUMENTS…`.

    Raises:
        SystemExit: `words` name no program, or the program ended that way.
    """
    if not words or words == ["-m"]:
        sys.exit("curitorch.external.rank: expected '-m MODULE …' or 'SCRIPT.py …', found nothing.")
    launch = launched()
    if launch is None:
        _run(words)
        return
    if signal.getsignal(signal.SIGTERM) == signal.SIG_IGN:  # handed down by `node`
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
    follow_parent(os.getppid())
    rank = ranks().rank
    layout = Layout(launch.run)
    _send_output_to(layout.rank_log(launch.attempt, rank))
    faulthandler.enable()  # a segmentation fault leaves its Python stack in the rank's log
    if STACKS_SIGNAL is not None:
        faulthandler.register(STACKS_SIGNAL, all_threads=True)
    directory = layout.logs(launch.attempt)
    report = start_report(directory, rank=rank, pid=os.getpid())
    error: BaseException | None = None
    try:
        _run(words)
    except BaseException as raised:
        error = raised
        if not _stopped_under_slurm(raised):
            raise
    finally:
        _finish_sdk(error)
        with contextlib.suppress(OSError):  # a full disk: the launcher knows that this rank ended
            end_report(directory, report, error)


def ask_for_stacks(pids: Iterable[int]) -> None:
    """Have ranks of this machine write their threads' stacks into their logs, where they listen."""
    for pid in pids:
        if STACKS_SIGNAL is not None and listens(pid):
            os.kill(pid, STACKS_SIGNAL)


def listens(pid: int) -> bool:
    """Return whether a process catches the signal, which would end it otherwise."""
    try:
        text = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    except OSError:
        return False
    match = _CAUGHT.search(text)
    return bool(STACKS_SIGNAL and match and int(match[1], 16) >> (STACKS_SIGNAL - 1) & 1)


def _run(words: list[str]) -> None:
    """Run a module or a script as `python` would, with `sys.argv` and `sys.path` as there."""
    from .autopatch.start import VARIABLE, is_users

    if os.environ.get(VARIABLE) and is_users(words):
        from .autopatch.__main__ import main as run_patched

        run_patched(["--", *words])
    elif words[0] == "-m":
        sys.argv = words[1:]
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = words
        sys.path.insert(0, str(Path(words[0]).resolve().parent))
        runpy.run_path(words[0], run_name="__main__")


def _stopped_under_slurm(error: BaseException) -> bool:
    """Return whether this rank stopped as it was asked to, and an elastic torchrun might not know.

    It would start the ranks again; the rank's report has the true status.
    """
    stopped = isinstance(error, SystemExit) and error.code in EXIT_CODES.values()
    return stopped and NODE in os.environ


def _finish_sdk(error: BaseException | None) -> None:
    """Let the SDK wait for its last upload, if the program used it."""
    api = sys.modules.get("curitorch.external.sdk.api")
    if api is not None:
        api.finish(error)


def _send_output_to(log: Path) -> None:
    """Append everything that this process and its children print to the file `log`."""
    log.parent.mkdir(parents=True, exist_ok=True)
    sys.stdout.flush()
    sys.stderr.flush()
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)


if __name__ == "__main__":
    main(sys.argv[1:])
