import pytest

from curitorch.external.checkpoint import FILE, list_checkpoints, newest_valid
from curitorch.external.stores import LocalStore


def write(directory, step, content=b"state"):
    source = directory.parent / "source"
    source.write_bytes(content)
    details = {"epoch": step // 10, "samples": step * 32, "world_size": 2, "model": {"type": "Net"}}
    details["metrics"] = {"val/loss": 0.5}
    LocalStore(directory).put(step, {FILE: source}, details=details)


@pytest.fixture
def directory(tmp_path):
    return tmp_path / "checkpoints"


def test_what_a_store_keeps_of_a_training_state_is_a_checkpoint(directory):
    write(directory, 120)
    [found] = list_checkpoints(directory)
    assert found.path == directory / "step-00000120" / "model.ckpt"
    assert found.path.read_bytes() == b"state"
    assert (found.step, found.epoch, found.samples, found.world_size) == (120, 12, 3840, 2)
    assert (found.bytes, found.metrics, found.model) == (5, {"val/loss": 0.5}, {"type": "Net"})


def test_the_newest_is_the_highest_recorded_step_and_not_a_name_or_a_time(directory):
    write(directory, 200)
    write(directory, 100)
    (directory / "last.ckpt").write_bytes(b"lies")
    assert newest_valid(directory).step == 200
    assert [c.step for c in list_checkpoints(directory)] == [100, 200]


def test_a_torn_or_altered_newest_is_passed_over_with_a_warning(directory):
    for step in (1, 2, 3):
        write(directory, step)
    (directory / "step-00000002" / FILE).write_bytes(b"stale")
    (directory / "step-00000003" / FILE).write_bytes(b"sta")
    with pytest.warns(UserWarning, match="altered"):
        assert newest_valid(directory).step == 1


def test_without_checkpoints_there_is_no_newest_and_nothing_is_made(directory):
    assert newest_valid(directory) is None
    assert list_checkpoints(directory) == []
    assert not directory.exists()
