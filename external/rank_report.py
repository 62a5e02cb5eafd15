"""How one trainer process ended: `logs/attempt-0/rank-1.json`, written by that process itself.

    {"schema": 1, "rank": 1, "host": "node-a", "pid": 4711, "started": 1763719200.1,
     "ended": 1763719230.5, "exit_code": 1,
     "error": {"type": "ValueError", "message": "bad batch", "traceback": "Traceback …"}}

`ended` stays None when the process was killed. Times are seconds since 1970, fine enough to tell
which rank failed first on one machine.
"""

import re
import time
import traceback
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from .atomic import write_json
from .environment import host
from .schema import UnreadableFile, read_record

SCHEMA = 1

_VICTIM = re.compile(
    r"connection (was )?(closed|reset|refused|lost)|broken pipe|closed by (the )?(remote )?peer"
    r"|communicator was aborted|socket (timeout|error)|timed out waiting|remote process exited"
    r"|end of file|recvBytes|heartbeat",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class RankError:
    """The exception that ended a rank."""

    type: str
    message: str
    traceback: str

    @property
    def is_victim(self) -> bool:
        """Whether this is what a rank sees when another one dies: a lost connection."""
        return _VICTIM.search(self.message) is not None


@dataclass(frozen=True)
class RankReport:
    """One trainer process, while it runs (`ended` is None) and after it ended."""

    rank: int
    host: str
    pid: int
    started: float
    ended: float | None = None
    exit_code: int | None = None
    error: RankError | None = None


def start_report(directory: Path, *, rank: int, pid: int) -> RankReport:
    """Record in the log directory of an attempt that a rank began."""
    report = RankReport(rank=rank, host=host(), pid=pid, started=time.time())
    _write(directory, report)
    return report


def end_report(directory: Path, report: RankReport, error: BaseException | None) -> None:
    """Record how a rank ended; `error` is the exception that left its program, if any."""
    exit_code, described = 0, None
    if isinstance(error, SystemExit):
        exit_code = error.code if isinstance(error.code, int) else int(error.code is not None)
    elif error is not None:
        exit_code = 1
    if exit_code and error is not None:
        described = RankError(
            type=type(error).__qualname__,
            message=str(error),
            traceback="".join(traceback.format_exception(error)),
        )
    _write(directory, replace(report, ended=time.time(), exit_code=exit_code, error=described))


def read_reports(directory: Path) -> list[RankReport]:
    """Return the reports of an attempt by rank; a torn one is left out."""
    reports = []
    for path in directory.glob("rank-*.json"):
        try:
            record = read_record(path, newest=SCHEMA)
            record.pop("schema")
            error = record.pop("error")
            reports.append(RankReport(**record, error=RankError(**error) if error else None))
        except (UnreadableFile, TypeError, KeyError):
            continue
    return sorted(reports, key=lambda report: report.rank)


def _write(directory: Path, report: RankReport) -> None:
    write_json(directory / f"rank-{report.rank}.json", {"schema": SCHEMA, **asdict(report)})
