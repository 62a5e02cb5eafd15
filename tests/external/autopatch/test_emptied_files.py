"""Files that a script empties before its loops are heard of, by whatever it opens them with."""

# ruff: noqa: PTH123, SIM115, UP020 - it is about `open`, by all its names

import builtins
import bz2
import io
import sys
import tempfile
from pathlib import Path

import pytest

from curitorch.external.autopatch.emptied_files import EmptiedFiles
from curitorch.external.autopatch.findings import Findings
from curitorch.external.autopatch.tracker import Tracker


@pytest.fixture
def emptied():
    """Return what listens for this file, as if it were a script's; and stops in any case."""
    tracker = Tracker()
    tracker.sources[__file__] = None
    found = EmptiedFiles(tracker)
    found.listen()
    yield found
    found.end()


def said(emptied):
    findings = Findings(strict=False, silent=True)
    emptied.check(findings)
    return [sentence for sentence in findings.said if "is emptied here" in sentence]


@pytest.mark.parametrize("empty", [
    lambda path: open(path, "w").close(),
    lambda path: open(bytes(path), mode="wb").close(),
    lambda path: io.open(path, "w+").close(),
    lambda path: path.write_text(""),
    lambda path: bz2.open(path, "wt").close(),
])  # fmt: skip
def test_a_file_that_is_emptied_and_written_to_later_is_said(emptied, tmp_path, empty):
    path = tmp_path / "log.csv"
    empty(path)
    emptied.end()
    assert said(emptied) == []
    path.write_text("step")
    [sentence] = said(emptied)
    assert f"'{path}'" in sentence
    assert __file__ in sentence


def test_files_that_are_read_appended_to_or_of_no_name_are_not(emptied, tmp_path):
    path = tmp_path / "log.csv"
    path.touch()
    with open(path), open(path, "a"), tempfile.NamedTemporaryFile(dir=tmp_path):
        emptied.end()
    path.write_text("step")
    (tmp_path / "other").touch()
    assert said(emptied) == []


def test_what_cannot_be_opened_is_an_error_as_ever(emptied, tmp_path):
    with pytest.raises(FileNotFoundError, match="none"):
        open(tmp_path / "none" / "log.csv", "w")
    with pytest.raises(ValueError, match="mode"):
        open(tmp_path / "log.csv", "wonder")
    emptied.end()
    assert said(emptied) == []


def test_nothing_is_left_in_the_way_once_the_loops_begin(monkeypatch):
    """An audit hook could not be taken away, and is called for each hash of a tensor."""
    monkeypatch.setattr(sys, "addaudithook", lambda hook: pytest.fail("stays for ever"))
    own = builtins.open
    emptied = EmptiedFiles(Tracker())
    emptied.listen()
    assert builtins.open is not own
    emptied.end()
    assert builtins.open is io.open is bz2._builtin_open is own
    assert Path(__file__).read_text()


def test_who_has_replaced_open_meanwhile_keeps_that(monkeypatch):
    own = builtins.open
    emptied = EmptiedFiles(Tracker())
    emptied.listen()
    others = lambda *args: own(*args)  # noqa: E731
    monkeypatch.setattr(builtins, "open", others)
    emptied.end()
    assert builtins.open is others
    monkeypatch.setattr(builtins, "open", own)
