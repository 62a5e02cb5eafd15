"""The processes of a training run: started apart, stopped in good time, never left over."""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil

from ..external import leash
from ..external.environment import RUN_DIR
from ..external.rank_report import read_reports


class TrainerProcesses:
    """A launcher (torchrun) and the ranks that it started, in a session of their own.

    Ctrl-C in the terminal does not reach them; the death of this process does, as SIGTERM.

    Args:
        command: The words to run, without a shell.
        environment: All variables; marks the processes as those of `run`.
        run: The run directory.
        logs: The attempt's log directory.
        launcher_log: Where the launcher's own output goes.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        environment: Mapping[str, str],
        run: Path,
        logs: Path,
        launcher_log: Path,
    ) -> None:
        self.run = run
        self.logs = logs
        logs.mkdir(parents=True, exist_ok=True)
        with launcher_log.open("ab") as log:
            self._launcher = subprocess.Popen(
                [sys.executable, "-I", "-S", leash.__file__, str(os.getpid()), *command],
                env=dict(environment),
                cwd=Path.cwd(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def poll(self) -> int | None:
        """Return the launcher's exit code, or None while it runs."""
        return self._launcher.poll()

    def ask_to_stop(self) -> None:
        """Send SIGTERM to the ranks, or to the launcher while there are none.

        Not through the launcher, which gives them 30 s at most.
        """
        ranks = [report.pid for report in read_reports(self.logs) if report.ended is None]
        ours = {process.pid for process in survivors(self.run)}
        targets = [pid for pid in ranks if pid in ours] or [self._launcher.pid]
        for pid in targets:
            _signal(pid, signal.SIGTERM)

    def end(self, *, grace_seconds: float) -> int:
        """See to it that no process is left, and return the launcher's exit code.

        A launcher that still runs is killed with its ranks, at once. Ranks that outlived their
        launcher, which somebody killed, get `grace_seconds` to save.
        """
        runs = self._launcher.poll() is None
        # The launcher is our child: whoever else waits for it takes its exit code from us.
        self._launcher.kill()
        exit_code = self._launcher.wait()
        end_leftovers(self.run, grace_seconds=0.0 if runs else grace_seconds)
        return exit_code


def survivors(run: Path) -> list[psutil.Process]:
    """Return the living processes of the run directory `run`, whoever launched them."""
    mark = str(run.resolve())
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(RUN_DIR) == mark and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (psutil.Error, OSError):  # ended meanwhile, or another user's
            continue
    return found


def end_leftovers(run: Path, *, grace_seconds: float) -> int:
    """End the processes that a killed launcher left behind; returns how many there were.

    They are asked to stop, as its death did already, and get `grace_seconds` to save.
    """
    left = survivors(run)
    for process in left:
        _signal(process.pid, signal.SIGTERM)
    _, alive = psutil.wait_procs(left, timeout=grace_seconds)
    kill([*alive, *survivors(run)])
    return len(left)


def kill(processes: Sequence[psutil.Process]) -> None:
    """Kill processes and wait until they are gone."""
    for process in processes:
        _signal(process.pid, signal.SIGKILL)
    psutil.wait_procs(list(processes), timeout=10)


def _signal(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:  # it ended meanwhile, which is what was wanted
        return
