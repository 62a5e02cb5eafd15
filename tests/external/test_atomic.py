import os
import subprocess
import sys

import pytest

from curitorch.external.atomic import (
    TEMPORARY_PREFIX,
    copy_or_link,
    remove_leftovers,
    whole_file,
    write_json,
)


def test_a_file_appears_only_when_it_is_whole(tmp_path):
    path = tmp_path / "new folder" / "x.bin"
    with whole_file(path) as temporary:
        temporary.write_bytes(b"half")
        assert not path.exists()
    assert path.read_bytes() == b"half"
    assert os.listdir(path.parent) == ["x.bin"]


def test_a_failed_write_leaves_what_was_there_and_nothing_else(tmp_path):
    path = tmp_path / "x.json"
    write_json(path, {"a": 1})
    with pytest.raises(OSError, match="full"), whole_file(path) as temporary:
        temporary.write_text("torn")
        raise OSError("disk full")
    assert path.read_text() == '{\n  "a": 1\n}\n'
    assert os.listdir(tmp_path) == ["x.json"]


def test_a_writer_that_is_killed_leaves_the_old_file_and_a_leftover_that_is_cleaned(tmp_path):
    path = tmp_path / "x.txt"
    path.write_text("old")
    program = (
        "import os, signal, sys\nfrom pathlib import Path\n"
        "from curitorch.external.atomic import whole_file\n"
        "with whole_file(Path(sys.argv[1])) as t:\n"
        "    t.write_text('new'); os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    result = subprocess.run([sys.executable, "-c", program, str(path)], check=False)
    assert result.returncode == -9
    assert path.read_text() == "old"
    assert len(list(tmp_path.glob(f"{TEMPORARY_PREFIX}*"))) == 1
    remove_leftovers(tmp_path)
    assert os.listdir(tmp_path) == ["x.txt"]


def test_a_file_can_be_read_by_whom_the_umask_allows(tmp_path, monkeypatch):
    """Which is never changed to ask for it: other threads make files meanwhile, or ask as well."""
    monkeypatch.setattr(os, "umask", lambda mask: pytest.fail("the umask of all threads"))
    plain, private = tmp_path / "plain", tmp_path / "private"
    plain.write_text("")
    private.write_text("mine")
    private.chmod(0o600)
    write_json(tmp_path / "x.json", {})
    copy_or_link(private, tmp_path / "copy")
    for name in ("x.json", "copy"):
        assert (tmp_path / name).stat().st_mode == plain.stat().st_mode


def test_a_linked_file_is_the_same_and_replaces_what_was_there(tmp_path):
    source, target = tmp_path / "a", tmp_path / "b"
    source.write_bytes(b"model")
    target.write_bytes(b"older")
    copy_or_link(source, target)
    assert target.read_bytes() == b"model"
    assert source.read_bytes() == b"model"
    assert sorted(os.listdir(tmp_path)) == ["a", "b"]
