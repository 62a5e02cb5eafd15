import pytest

from curitorch.cachers import tree
from curitorch.cachers.tree import check_sizes, copy_whole, move_whole, sizes
from curitorch.external.schema import UnreadableFile


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / "a source"
    (folder / "deep" / "er").mkdir(parents=True)
    (folder / "one $.txt").write_text("1")
    (folder / "deep" / "er" / "ü.bin").write_bytes(b"22")
    (folder / "empty").touch()
    return folder


WHOLE = {"one $.txt": 1, "deep/er/ü.bin": 2, "empty": 0}


@pytest.fixture
def target(tmp_path):
    return tmp_path / "not yet there" / "target"


@pytest.mark.parametrize("put", [copy_whole, move_whole])
@pytest.mark.parametrize("before", ["nothing", "a directory", "a file", "a link"])
def test_a_directory_takes_its_place_whole(source, target, tmp_path, put, before):
    target.parent.mkdir()
    old = tmp_path / "old"
    old.mkdir()
    (old / "stale").touch()
    if before == "a directory":
        old.rename(target)
    elif before == "a file":
        target.write_text("stale")
    elif before == "a link":
        target.symlink_to(old)

    put(source, target)

    assert sizes(target) == WHOLE
    assert source.exists() == (put is copy_whole)
    assert [entry.name for entry in target.parent.iterdir()] == ["target"]
    assert before != "a link" or (old / "stale").exists()


@pytest.mark.parametrize("put", [copy_whole, move_whole])
@pytest.mark.parametrize("before", ["nothing", "a directory", "a file"])
def test_a_file_takes_its_place_whole(source, target, put, before):
    target.parent.mkdir()
    if before == "a directory":
        (target / "stale").mkdir(parents=True)
    elif before == "a file":
        target.write_text("stale")

    put(source / "one $.txt", target)

    assert target.read_text() == "1"
    assert sizes(target) == {".": 1}
    assert [entry.name for entry in target.parent.iterdir()] == ["target"]


def test_a_copy_that_fails_changes_nothing(source, target):
    copy_whole(source, target)
    (source / "one $.txt").write_text("changed")

    def refuse(copy):
        assert (copy / "one $.txt").read_text() == "changed"
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        copy_whole(source, target, verify=refuse)
    (source / "broken link").symlink_to("nowhere")
    with pytest.raises(OSError, match="broken link"):
        copy_whole(source, target)

    assert sizes(target) == WHOLE
    assert [entry.name for entry in target.parent.iterdir()] == ["target"]


def test_a_rename_that_fails_puts_the_old_directory_back(source, target, monkeypatch):
    copy_whole(source, target)
    path_class = type(target)
    real = path_class.rename

    def rename(path, to):
        if to == target and path == source:
            raise PermissionError("no")
        return real(path, to)

    monkeypatch.setattr(path_class, "rename", rename)
    with pytest.raises(PermissionError):
        move_whole(source, target)
    assert sizes(target) == sizes(source) == WHOLE


def test_a_move_to_another_file_system_copies_and_deletes(source, target, monkeypatch):
    real = tree._replace

    def replace(origin, to):
        if origin == source:
            raise OSError(tree.errno.EXDEV, "another file system")
        real(origin, to)

    monkeypatch.setattr(tree, "_replace", replace)
    move_whole(source, target)
    assert sizes(target) == WHOLE
    assert not source.exists()


def test_only_what_may_be_shared_is_shared(source, target):
    copy_whole(source, target, leave_out=["empty"], link=lambda path: path.suffix == ".bin")

    assert (source / "deep/er/ü.bin").samefile(target / "deep/er/ü.bin")
    assert not (source / "one $.txt").samefile(target / "one $.txt")
    assert not (target / "empty").exists()


def test_half_written_files_are_not_copied(source, target):
    (source / ".incomplete-17-x").write_text("half")
    copy_whole(source, target)
    assert sizes(target) == WHOLE


@pytest.mark.parametrize("put", [copy_whole, move_whole])
def test_one_path_in_the_other_is_refused(source, put):
    for target in (source, source / "deep" / "er", source.parent):
        with pytest.raises(ValueError, match="one lies in the other"):
            put(source, target)
    assert sizes(source) == WHOLE


def test_sizes_hold_until_a_file_is_torn_or_gone(source):
    recorded = sizes(source)
    assert recorded == WHOLE
    (source / "more").touch()
    check_sizes(source, recorded)

    (source / "deep" / "er" / "ü.bin").write_bytes(b"2")
    with pytest.raises(UnreadableFile, match="1 bytes, recorded are 2"):
        check_sizes(source, recorded)
    (source / "deep" / "er" / "ü.bin").unlink()
    with pytest.raises(UnreadableFile, match="missing"):
        check_sizes(source, recorded)
    with pytest.raises(UnreadableFile, match="expected a table"):
        check_sizes(source, ["one"])
