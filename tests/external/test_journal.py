import json
import math
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from curitorch.external.journal import Journal, JournalTail, merged, read_journal
from curitorch.external.schema import UnreadableFile


def test_what_is_written_is_read_and_every_line_is_valid_json(tmp_path):
    path = tmp_path / "journal.jsonl"
    values = {"loss": 0.25, "nan": math.nan, "inf": math.inf, "minus": -math.inf, "ä/b": 3}
    with Journal(path, clock=lambda: 12.5) as journal:
        journal.attempt(0, resume_step=0)
        journal.write("metric", step=1, epoch=0, metrics=values)

    def refuse(constant):
        raise AssertionError(constant)

    for line in path.read_text().splitlines():
        json.loads(line, parse_constant=refuse)
    metric = read_journal(path)[1]
    assert metric["time"] == 12.5
    assert math.isnan(metric["metrics"].pop("nan"))
    assert metric["metrics"] == {"loss": 0.25, "inf": math.inf, "minus": -math.inf, "ä/b": 3}


def test_a_torn_last_line_is_left_out_and_the_next_attempt_stands_alone(tmp_path):
    path = tmp_path / "journal.jsonl"
    with Journal(path) as journal:
        journal.attempt(0, resume_step=0)
        journal.write("step", step=1, epoch=0)
    with path.open("a") as file:
        file.write('{"event": "step", "st')
    assert len(read_journal(path)) == 2
    with Journal(path) as journal:
        journal.attempt(1, resume_step=1)
    assert [event["event"] for event in read_journal(path)] == ["attempt", "step", "attempt"]


def test_merged_has_every_step_once_after_attempts_that_did_steps_again(tmp_path):
    path = tmp_path / "journal.jsonl"
    with Journal(path) as journal:
        for attempt, (first, last) in enumerate([(1, 5), (4, 6), (3, 8)]):
            journal.attempt(attempt, resume_step=first - 1)
            for step in range(first, last + 1):
                journal.write("step", step=step, epoch=0)
                journal.write("metric", step=step, epoch=0, metrics={"attempt": attempt})
    history = merged(read_journal(path))
    assert [e["step"] for e in history if e["event"] == "step"] == list(range(1, 9))
    came_from = [e["metrics"]["attempt"] for e in history if e["event"] == "metric"]
    assert came_from == [0, 0, 2, 2, 2, 2, 2, 2]


def test_a_journal_read_while_it_grows_gives_whole_lines_each_once(tmp_path):
    path = tmp_path / "journal.jsonl"
    tail = JournalTail(path)
    assert tail.read() == []
    done = threading.Event()

    def write():
        with Journal(path) as journal:
            for step in range(2000):
                journal.write("step", step=step, epoch=0, padding="x" * (step % 50))
        done.set()

    writer = threading.Thread(target=write)
    writer.start()
    steps = []
    while not done.is_set():
        steps += [event["step"] for event in tail.read()]
    writer.join()
    steps += [event["step"] for event in tail.read()]
    assert steps == list(range(2000))


def test_a_half_written_line_is_read_once_it_is_whole(tmp_path):
    path = tmp_path / "journal.jsonl"
    tail = JournalTail(path)
    path.write_text('{"event": "step", ')
    assert tail.read() == []
    with path.open("a") as file:
        file.write('"step": 4}\n')
    assert tail.read() == [{"event": "step", "step": 4}]


def test_kill_9_loses_nothing_that_was_written(tmp_path):
    path = tmp_path / "journal.jsonl"
    program = (
        "import os, signal, sys\nfrom pathlib import Path\n"
        "from curitorch.external.journal import Journal\n"
        "journal = Journal(Path(sys.argv[1]))\n"
        "for step in range(100): journal.write('step', step=step, epoch=0)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", program, str(path)], check=False)
    assert [event["step"] for event in read_journal(path)] == list(range(100))


def test_a_journal_of_a_newer_curitorch_is_refused(tmp_path):
    path = tmp_path / "journal.jsonl"
    path.write_text('{"event": "attempt", "schema": 2, "attempt": 0, "resume_step": 0}\n')
    with pytest.raises(UnreadableFile, match="schema 2, this curitorch reads up to 1"):
        read_journal(path)


def test_a_full_disk_is_an_error_at_the_write():
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full, a Linux device")
    journal = Journal(Path("/dev/full"))
    with pytest.raises(OSError):
        journal.write("step", step=1, epoch=0)
