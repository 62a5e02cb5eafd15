"""What ranks write of where they are, read off their logs."""

import threading
import time

from curitorch.external.attempt import start_attempt
from curitorch.external.layout import Layout
from curitorch.external.rank_report import read_reports, start_report
from curitorch.stages import stall
from curitorch.stages.stall import stacks_by


def ranks(run, count):
    """Return the attempt and the reports of ranks that have begun to write their logs."""
    attempt = start_attempt(run, ["train"], world_size=count, nodes=1)
    logs = Layout(run).logs(attempt.number)
    for rank in range(count):
        start_report(logs, rank=rank, pid=1)
        Layout(run).rank_log(attempt.number, rank).write_text("before\n")
    return attempt, read_reports(logs)


def test_stacks_that_come_late_and_with_a_pause_are_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(stall, "QUIET_SECONDS", 3.0)
    attempt, reports = ranks(tmp_path, 2)

    def write():
        for line in ("first\n", "last\n"):
            time.sleep(0.3)
            for rank in (0, 1):
                with Layout(tmp_path).rank_log(attempt.number, rank).open("a") as log:
                    log.write(line)

    writer = threading.Thread(target=write)
    said = stacks_by(writer.start, tmp_path, attempt, reports)
    writer.join()
    assert said.count("first\nlast") == 2
    assert "before" not in said


def test_a_rank_that_says_nothing_is_not_waited_for_without_end(tmp_path, monkeypatch):
    monkeypatch.setattr(stall, "STACKS_SECONDS", 0.3)
    attempt, reports = ranks(tmp_path, 2)
    log = Layout(tmp_path).rank_log(attempt.number, 1)
    said = stacks_by(lambda: log.write_text("before\nhere\n"), tmp_path, attempt, reports)
    assert said == f"Rank 1, whose log is {log}:\nhere"
