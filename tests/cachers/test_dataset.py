from pathlib import Path

import pytest

from curitorch.cachers import DatasetCacher
from curitorch.external.schema import UnreadableFile
from curitorch.params.curifactory_api import ExperimentParameters, Record, stage


def fill(folder):
    (folder / "train").mkdir(parents=True)
    (folder / "train" / "a $ ü.npy").write_bytes(b"1234")
    (folder / "labels.txt").write_text("0\n1\n")
    return folder


def prepare(manager, *, fail=False):
    ran = []

    @stage(None, ["data"], [DatasetCacher])
    def prepare(record):
        ran.append(record)
        path = Path(record.stage_cachers[0].get_path())
        fill(path) if not path.exists() else None
        if fail:
            raise RuntimeError("interrupted")
        return path

    record = prepare(Record(manager, ExperimentParameters(name="test")))
    return record.state["data"], bool(ran)


def test_a_dataset_that_was_finished_is_cached(experiment):
    made, ran = prepare(experiment())
    assert ran
    found, ran = prepare(experiment())
    assert not ran
    assert found == made
    assert (found / "labels.txt").read_text() == "0\n1\n"


def test_a_dataset_that_was_interrupted_is_not_cached(experiment):
    with pytest.raises(RuntimeError, match="interrupted"):
        prepare(experiment(), fail=True)
    assert prepare(experiment())[1]
    assert not prepare(experiment())[1]


@pytest.mark.parametrize("keep", [None, b"123"])
def test_a_dataset_of_which_a_file_is_torn_or_gone_is_not_cached(experiment, keep):
    path, _ = prepare(experiment())
    file = path / "train" / "a $ ü.npy"
    file.unlink() if keep is None else file.write_bytes(keep)

    cacher = DatasetCacher(path)
    assert not cacher.check()
    with pytest.raises(UnreadableFile, match=r"a \$ ü.npy"):
        cacher.load()


def test_files_that_a_reader_adds_do_no_harm(experiment):
    path, _ = prepare(experiment())
    (path / "index.cache").touch()
    assert DatasetCacher(path).check()


@pytest.mark.parametrize("move", [False, True])
@pytest.mark.parametrize("kind", ["directory", "file"])
def test_a_dataset_from_elsewhere_is_put_in_place(tmp_path, move, kind):
    source = fill(tmp_path / "elsewhere")
    if kind == "file":
        source = source / "labels.txt"
    target = tmp_path / "cache" / "data"
    cacher = DatasetCacher(target, move=move)
    cacher.save(str(source))

    assert source.exists() is not move
    loaded = DatasetCacher(target).load()
    assert loaded == target
    text = loaded if kind == "file" else loaded / "labels.txt"
    assert text.read_text() == "0\n1\n"


def test_what_is_no_dataset_is_told(tmp_path):
    cacher = DatasetCacher(tmp_path / "data")
    with pytest.raises(FileNotFoundError, match="no dataset 'nowhere'"):
        cacher.save("nowhere")
    for value in (None, [1], b"data"):
        with pytest.raises(TypeError, match="expected the path"):
            cacher.save(value)
    with pytest.raises(UnreadableFile, match="never finished"):
        cacher.load()
    fill(tmp_path / "data")
    assert not cacher.check()
