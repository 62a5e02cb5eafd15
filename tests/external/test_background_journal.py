import logging
import os
import resource
import signal
import subprocess
import sys
import threading
import time

import pytest

from curitorch.external import background_journal
from curitorch.external.background_journal import BackgroundJournal
from curitorch.external.journal import Journal, JournalTail, read_journal


@pytest.fixture(autouse=True)
def patience(monkeypatch):
    """Let `fsync` and `close` wait for a disk that others use as well."""
    monkeypatch.setattr(background_journal, "PATIENCE", 100.0)


def wait_until(condition, seconds=100.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def said(caplog, journal):
    """Return what was logged of this journal, and of no other one of this process."""
    return [record for record in caplog.records if f"'{journal.path}'" in record.message]


def step_line(step):
    return b'{"event": "step", "step": %d}\n' % step


def steps(events):
    return [event["step"] for event in events if event["event"] == "step"]


@pytest.fixture
def small_files(monkeypatch):
    """Let this process's files grow no larger than told, as on a full disk; undone by None."""
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # Python 3.11 would leave torn files
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    def limit(size):
        value = before[0] if size is None else size
        resource.setrlimit(resource.RLIMIT_FSIZE, (value, before[1]))

    yield limit
    limit(None)


def test_what_is_written_is_read_as_of_any_journal(tmp_path):
    with BackgroundJournal(tmp_path / "a" / "journal.jsonl") as journal:
        assert not (tmp_path / "a").exists()  # the file comes with the first line
        journal.attempt(0, resume_step=0)
        for step in range(1, 101):
            journal.write("step", step=step)
        journal.fsync()
        assert steps(read_journal(journal.path)) == list(range(1, 101))
    with Journal(journal.path) as plain:
        plain.write("step", step=101)
    assert steps(read_journal(journal.path)) == list(range(1, 102))


def test_lines_made_later_are_between_those_made_at_once_and_synced_with_them(tmp_path):
    with Journal(tmp_path / "plain.jsonl") as plain:
        plain.append_later(step_line, 3, size=30)
        assert steps(read_journal(plain.path)) == [3]
    with BackgroundJournal(tmp_path / "journal.jsonl") as journal:
        for step in range(1, 101, 2):
            journal.append_later(step_line, step, size=30)
            journal.write("step", step=step + 1)
        journal.append_later(step_line, 101, size=30)
        journal.fsync()
        assert steps(read_journal(journal.path)) == list(range(1, 102))


def test_who_is_faster_than_the_thread_makes_the_lines(tmp_path, monkeypatch):
    monkeypatch.setattr(background_journal, "INTERVAL", 3600)
    makers = {}

    def make(step):
        makers[step] = threading.current_thread() is threading.main_thread()
        return step_line(step)

    with BackgroundJournal(tmp_path / "journal.jsonl", limit=8 * 300) as journal:
        for step in range(50):
            journal.append_later(make, step, size=30)
    assert makers == {step: step > 10 for step in range(50)}
    assert steps(read_journal(journal.path)) == list(range(50))


def test_lines_come_by_themselves_soon(tmp_path):
    journal = BackgroundJournal(tmp_path / "journal.jsonl")
    journal.write("step", step=1)
    wait_until(lambda: steps(read_journal(journal.path)) == [1])
    journal.close()


def test_a_full_disk_loses_nothing_that_can_wait(tmp_path, small_files, caplog):
    journal = BackgroundJournal(tmp_path / "journal.jsonl")
    journal.write("step", step=1)
    journal.fsync()
    small_files(journal.path.stat().st_size + 10)  # room for a part of a line
    for step in range(2, 50):
        journal.write("step", step=step)
    wait_until(lambda: said(caplog, journal))
    assert steps(read_journal(journal.path)) == [1]  # the torn line is no line
    small_files(None)
    journal.close()
    assert steps(read_journal(journal.path)) == list(range(1, 50))
    assert journal.lost == 0
    assert [r.message.split("(")[0] for r in said(caplog, journal)] == [
        f"The journal '{journal.path}' cannot be written "
    ]


def test_what_cannot_wait_is_a_gap_that_is_counted_with_one_warning(tmp_path, small_files, caplog):
    journal = BackgroundJournal(tmp_path / "journal.jsonl", limit=2000)
    small_files(0)
    began = time.monotonic()
    for step in range(5000):
        journal.append_later(step_line, step, size=30)
    journal.write("checkpoint", step=7)  # events find room
    assert time.monotonic() - began < 60  # to wait for each line would take ten minutes
    assert journal.lost > 4000
    wait_until(lambda: said(caplog, journal))
    small_files(None)
    journal.close()
    events = read_journal(journal.path)
    [gap] = [event for event in events if event["event"] == "gap"]
    assert gap["lost"] == journal.lost == 5000 - len(steps(events))
    assert [e["event"] for e in events[-2:]] == ["checkpoint", "gap"]
    one, count = said(caplog, journal)
    assert (one.levelno, count.levelno) == (logging.WARNING, logging.WARNING)
    assert "cannot be written" in one.message
    assert f"{journal.lost} lines" in count.message


def test_what_a_full_disk_does_not_take_at_the_end_is_counted(
    tmp_path, monkeypatch, small_files, caplog
):
    monkeypatch.setattr(background_journal, "PATIENCE", 0.2)
    journal = BackgroundJournal(tmp_path / "journal.jsonl")
    small_files(0)
    journal.append_later(step_line, 1, size=30)
    wait_until(lambda: said(caplog, journal))  # it has been made, and waits
    journal.append_later(step_line, 2, size=30)
    journal.write("step", step=3)
    journal.close()
    assert journal.lost == 3
    assert said(caplog, journal)[-1].message.startswith("3 lines")


def test_a_dead_disk_holds_up_neither_the_writer_nor_the_end(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(background_journal, "PATIENCE", 0.2)
    os.mkfifo(tmp_path / "journal.jsonl")  # opening it to read and write works; nobody reads
    journal = BackgroundJournal(tmp_path / "journal.jsonl", limit=100_000)
    began = time.monotonic()
    for step in range(20_000):
        journal.append_later(step_line, step, size=30)
    journal.fsync()
    journal.close()
    assert time.monotonic() - began < 60  # and not for ever
    assert journal.lost > 0


def test_a_reader_meets_every_line_once_and_whole_while_it_is_written(tmp_path, small_files):
    journal = BackgroundJournal(tmp_path / "journal.jsonl", limit=2**24)
    tail = JournalTail(journal.path)
    done = threading.Event()
    read = []

    def follow():
        while not done.is_set():
            read.extend(tail.read())

    reader = threading.Thread(target=follow)
    reader.start()
    for step in range(3000):
        if step % 3:
            journal.append_later(step_line, step, size=30)
        else:
            journal.write("step", step=step)
        if step % 100 == 0:
            size = journal.path.stat().st_size if journal.path.exists() else 0
            small_files(size + step % 97)  # the disk is full at some byte of some line
        if step % 100 == 50:
            small_files(None)
            journal.fsync()
    small_files(None)
    journal.close()
    done.set()
    reader.join()
    read.extend(tail.read())
    assert steps(read) == list(range(3000))


def test_a_torn_line_of_a_killed_attempt_does_not_take_the_next_one_with_it(tmp_path):
    path = tmp_path / "journal.jsonl"
    path.write_text('{"event": "step", "step": 1}\n{"event": "st')
    with BackgroundJournal(path) as journal:
        journal.write("step", step=2)
    assert steps(read_journal(path)) == [1, 2]


def test_a_forked_child_writes_nothing(tmp_path):
    code = f"""
import os
from pathlib import Path
from curitorch.external import background_journal
from curitorch.external.background_journal import BackgroundJournal
background_journal.PATIENCE = 100.0
journal = BackgroundJournal(Path({str(tmp_path)!r}, "journal.jsonl"))
for step in range(1000):
    journal.write("step", step=step)
if os.fork() == 0:
    journal.write("step", step=-1)
    journal.append_later(lambda: b'{{"event": "step", "step": -2}}', size=30)
    journal.fsync()
    journal.close()
    os._exit(0)
os.wait()
journal.close()
"""
    subprocess.run([sys.executable, "-c", code], check=True)
    assert steps(read_journal(tmp_path / "journal.jsonl")) == list(range(1000))


def test_a_process_that_is_killed_leaves_whole_lines_one_after_the_other(tmp_path):
    code = f"""
import itertools, time
from pathlib import Path
from curitorch.external import background_journal
background_journal.PATIENCE = 100.0
journal = background_journal.BackgroundJournal(Path({str(tmp_path)!r}, "journal.jsonl"))
for step in itertools.count():
    journal.append_later(lambda step: b'{{"event": "step", "step": %d}}\\n' % step, step, size=30)
    if step == 500:
        journal.fsync()
        print("synced", flush=True)
    time.sleep(0.0002)
"""
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout.readline() == "synced\n"
        finally:
            process.kill()
    found = steps(read_journal(tmp_path / "journal.jsonl"))
    assert len(found) > 500
    assert found == list(range(len(found)))


def test_what_comes_just_before_the_end_is_written(tmp_path):
    drained, goes_on = threading.Event(), threading.Event()

    class HeldUp(BackgroundJournal):
        """Its thread stands still whenever it has written."""

        def _drain(self, *, sync):
            is_written = super()._drain(sync=sync)
            drained.set()
            goes_on.wait(100)
            return is_written

    journal = HeldUp(tmp_path / "journal.jsonl")
    journal.append(step_line(1))
    wait_until(drained.is_set)
    journal.append(step_line(2))
    closing = threading.Thread(target=journal.close)
    closing.start()
    wait_until(lambda: journal._closed)
    goes_on.set()
    closing.join()
    assert steps(read_journal(journal.path)) == [1, 2]
    assert journal.lost == 0
