import json
from pathlib import Path

import pytest

from curitorch.cachers import WholeCacher
from curitorch.external.atomic import whole_file
from curitorch.external.schema import UnreadableFile
from curitorch.params.curifactory_api import ExperimentParameters, Record, stage


class TextCacher(WholeCacher):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, extension=".txt", **kwargs)

    def save(self, obj):
        with whole_file(self.path) as temporary:
            temporary.write_text(obj)
        self.record_sizes()
        self.save_metadata()
        return str(self.path)

    def load(self):
        return self.path.read_text()


def run_stage(manager, *, overwrite=False, cacher=TextCacher):
    """Run a stage with a text output; return the text and whether the stage's body ran."""
    ran = []

    @stage(None, ["text"], [cacher])
    def write_text(record):
        ran.append(record)
        return "hello"

    params = ExperimentParameters(name="test", overwrite=overwrite)
    record = write_text(Record(manager, params))
    return record.state["text"], bool(ran)


def artifact(suffix):
    (path,) = Path("data/cache").glob(f"*{suffix}")
    return path


def test_a_whole_artifact_is_cached(experiment):
    assert run_stage(experiment()) == ("hello", True)
    assert run_stage(experiment()) == ("hello", False)

    metadata = json.loads(artifact("_text_metadata.json").read_text())
    assert metadata["artifact_name"] == "text"
    assert metadata["extra"]["files"] == {".": 5}
    assert metadata["preview"]


def test_overwriting_runs_the_stage_again(experiment):
    run_stage(experiment())

    assert run_stage(experiment(), overwrite=True) == ("hello", True)
    manager = experiment()
    manager.overwrite = True
    assert run_stage(manager) == ("hello", True)
    manager = experiment()
    manager.overwrite_stages = ["write_text"]
    assert run_stage(manager) == ("hello", True)


def test_a_torn_artifact_is_not_cached(experiment):
    run_stage(experiment())
    artifact("_text.txt").write_text("hel")

    assert run_stage(experiment()) == ("hello", True)
    assert artifact("_text.txt").read_text() == "hello"


@pytest.mark.parametrize("content", ["", '{"extra": {"fi', "[]", "{}", '{"extra": 3}', b"\xff\xfe"])
def test_torn_metadata_is_not_cached_and_stops_nothing(experiment, content):
    run_stage(experiment())
    content = content if isinstance(content, bytes) else content.encode()
    artifact("_text_metadata.json").write_bytes(content)
    cacher = TextCacher(artifact("_text.txt"))

    assert not cacher.check()
    assert cacher.load_metadata() == {}
    assert cacher.load() == "hello"
    with pytest.raises(UnreadableFile):
        cacher.verify()
    assert run_stage(experiment()) == ("hello", True)
    assert run_stage(experiment()) == ("hello", False)


def test_metadata_is_written_whole(experiment, monkeypatch):
    run_stage(experiment())
    before = artifact("_text_metadata.json").read_text()
    cacher = TextCacher(artifact("_text.txt"))
    cacher.extra_metadata["note"] = "new"

    def no_space(*arguments):
        raise OSError("No space left on device")

    monkeypatch.setattr("os.fsync", no_space)
    with pytest.raises(OSError, match="No space"):
        cacher.save_metadata()
    assert artifact("_text_metadata.json").read_text() == before
    assert not list(Path("data/cache").glob(".*"))


def test_a_cacher_works_without_a_stage(tmp_path):
    path = tmp_path / "a $b ü" / "note"
    cacher = TextCacher(path)
    assert not cacher.check()
    cacher.save("good")

    again = TextCacher(str(path))
    assert again.check()
    assert again.load() == "good"
    assert again.load_metadata()["extra"]["files"] == {".": 4}


def test_what_the_stage_noted_stays_beside_what_the_cacher_notes(experiment):
    @stage(None, ["text"], [TextCacher])
    def write_text(record):
        record.stage_cachers[0].extra_metadata["note"] = "3e-7"
        return "hello"

    write_text(Record(experiment(), ExperimentParameters(name="test")))
    extra = json.loads(artifact("_text_metadata.json").read_text())["extra"]
    assert extra == {"note": "3e-7", "files": {".": 5}}


def test_a_full_store_has_the_artifact_and_its_metadata_also_of_a_cached_run(experiment):
    for _ in range(2):
        manager = experiment(store_full=True)
        run_stage(manager)
        stored = Path(manager.get_run_output_path()) / "artifacts"
        assert [path.read_text() for path in stored.glob("*_text.txt")] == ["hello"]
        assert len(list(stored.glob("*_text_metadata.json"))) == 1
