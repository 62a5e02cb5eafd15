import pytest

from curitorch.external.checkpoint import (
    checkpoint_path,
    commit_checkpoint,
    list_checkpoints,
    newest_valid,
    prune,
    read_checkpoint,
    sidecar_path,
)
from curitorch.external.schema import UnreadableFile


def write(directory, step, content=b"state"):
    path = checkpoint_path(directory, step)
    path.write_bytes(content)
    return commit_checkpoint(
        path,
        step=step,
        epoch=step // 10,
        samples=step * 32,
        world_size=2,
        metrics={"val/loss": 0.5},
        model={"type": "Net"},
    )


def test_a_sidecar_goes_round(tmp_path):
    written = write(tmp_path, 120)
    assert written.path.name == "step-00000120.ckpt"
    assert read_checkpoint(written.path) == written


def test_a_file_without_a_sidecar_is_no_checkpoint(tmp_path):
    write(tmp_path, 1)
    checkpoint_path(tmp_path, 2).write_bytes(b"was being written")
    assert [c.step for c in list_checkpoints(tmp_path)] == [1]
    with pytest.raises(FileNotFoundError):
        read_checkpoint(checkpoint_path(tmp_path, 2))


def test_the_newest_is_the_highest_recorded_step_and_not_a_name_or_a_time(tmp_path):
    write(tmp_path, 200)
    older = write(tmp_path, 100)
    older.path.rename(tmp_path / "step-00000999.ckpt")
    sidecar_path(older.path).rename(tmp_path / "step-00000999.json")
    (tmp_path / "last.ckpt").write_bytes(b"lies")
    assert newest_valid(tmp_path).step == 200


def test_a_torn_or_altered_newest_is_passed_over_with_a_warning(tmp_path):
    write(tmp_path, 1)
    write(tmp_path, 2).path.write_bytes(b"stale")
    write(tmp_path, 3).path.write_bytes(b"sta")
    with pytest.warns(UserWarning, match="altered"):
        found = newest_valid(tmp_path)
    assert found.step == 1


@pytest.mark.parametrize("text", ["", "{", "{}", '{"schema": 1}', '{"schema": 9}', "null"])
def test_a_torn_or_foreign_sidecar_hides_its_checkpoint(tmp_path, text):
    write(tmp_path, 1)
    bad = write(tmp_path, 2)
    sidecar_path(bad.path).write_text(text)
    assert newest_valid(tmp_path).step == 1
    with pytest.raises(UnreadableFile):
        read_checkpoint(bad.path)


def test_without_checkpoints_there_is_no_newest(tmp_path):
    assert newest_valid(tmp_path) is None
    assert newest_valid(tmp_path / "nowhere") is None


def test_pruning_keeps_the_newest(tmp_path):
    for step in (5, 1, 3, 2, 4):
        write(tmp_path, step)
    prune(tmp_path, keep=0)
    assert len(list_checkpoints(tmp_path)) == 5
    prune(tmp_path, keep=2)
    assert [c.step for c in list_checkpoints(tmp_path)] == [4, 5]
    assert len(list(tmp_path.iterdir())) == 4
