import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from curitorch.cachers import TrainingRun, TrainingRunCacher
from curitorch.external.attempt import start_attempt
from curitorch.external.schema import UnreadableFile
from curitorch.params.curifactory_api import (
    ExperimentParameters,
    HTMLReporter,
    Lazy,
    Record,
    stage,
)
from curitorch.stages import external_training


@pytest.fixture
def train(make_run):
    """Run a stage that trains into its own run directory; return its run and whether it ran."""

    def run(manager, *, output="run", name="test", complete=True, overwrite=False):
        ran = []

        @stage(None, [output], [TrainingRunCacher])
        def train(record):
            ran.append(record)
            path = Path(record.stage_cachers[0].get_path())
            shutil.rmtree(path, ignore_errors=True)
            record.report(HTMLReporter("curves", name="run"))
            return TrainingRun(make_run(path, complete=complete))

        record = Record(manager, ExperimentParameters(name=name, overwrite=overwrite))
        train(record)
        return record.state[str(output)], bool(ran)

    return run


def run_directory():
    (path,) = Path("data/cache").glob("*_run")
    return path


def test_a_complete_run_is_cached(experiment, train):
    trained, ran = train(experiment())
    assert ran
    cached, ran = train(experiment())
    assert not ran
    assert cached == trained
    assert cached.is_complete
    extra = json.loads(Path(f"{run_directory()}_metadata.json").read_text())["extra"]
    assert (extra["step"], extra["epoch"], extra["attempts"]) == (2, 1, 1)


def test_a_run_that_was_told_other_options_is_cached_and_said_to_be(experiment, make_run, capsys):
    def train(width, *, moved="/a"):
        made = []

        def launch(record, trainer, *, options, **settings):
            run = make_run(record.stage_cachers[0].path)
            made.append(run)
            words = ["python", *(f"--{name}={value}" for name, value in options.items())]
            start_attempt(run, words, world_size=1, nodes=1)
            return run

        options = {"width": width, "from": moved}
        stage = external_training("train.py", options=options, train=launch)
        stage(Record(experiment(), ExperimentParameters(name="test")))
        return bool(made), " ".join(capsys.readouterr().out.split())

    assert train(16)[0]
    trained, said = train(16, moved="/b")
    assert not trained
    assert "not in the hash" not in said
    trained, said = train(32)
    assert not trained
    assert "without --width=32. A stage's options are not in the hash" in re.sub(
        r" training_run.py:\d+", "", said
    )


def test_an_incomplete_run_is_an_error_and_never_cached(experiment, train):
    with pytest.raises(UnreadableFile, match="a run that is not complete"):
        train(experiment(), complete=False)
    assert run_directory().is_dir()

    assert train(experiment())[1]
    assert not train(experiment())[1]


@pytest.mark.parametrize(
    ("torn", "size"), [("s_file_list.json", 0), ("s_file_list_metadata.json", 9), ("s/*.pkl", 9)]
)
def test_a_torn_report_of_a_whole_run_is_made_again_and_fails_no_later_experiment(
    experiment, train, torn, size, capsys
):
    train(experiment())
    (file,) = Path("data/cache").glob(f"*_reportable{torn}")
    file.write_bytes(file.read_bytes()[:size])

    assert train(experiment())[1]
    assert "reported is torn" in capsys.readouterr().out
    manager = experiment()
    assert not train(manager)[1]
    assert [reported.name for reported in manager.reportables] == ["run"]


@pytest.mark.parametrize("torn", ["manifest.json", "model.ckpt", "metadata"])
@pytest.mark.parametrize("how", ["cut", "gone"])
def test_a_torn_run_is_never_cached(experiment, train, torn, how):
    train(experiment())
    path = run_directory()
    file = Path(f"{path}_metadata.json") if torn == "metadata" else path / torn
    if how == "cut":
        file.write_bytes(file.read_bytes()[:-3])
    else:
        file.unlink()
    harmless = torn == "metadata" and how == "gone"  # the manifest says that the run is whole

    assert TrainingRunCacher(path).check() == harmless
    assert train(experiment())[1] != harmless
    assert not train(experiment())[1]


def test_overwriting_trains_again(experiment, train):
    train(experiment())
    assert train(experiment(), overwrite=True)[1]


def test_a_notebook_loads_a_run_by_its_path(make_run, tmp_path, monkeypatch):
    make_run(tmp_path / "data" / "a $run")
    (tmp_path / "notebooks").mkdir()
    monkeypatch.chdir(tmp_path / "notebooks")

    for path in ("../data/a $run", "../data/a $run/", tmp_path / "data" / "a $run"):
        run = TrainingRunCacher(path).load()
        assert isinstance(run, TrainingRun)
        assert list(run.metrics()["val/loss"]) == [0.5, 0.25]


def test_torn_metadata_does_not_keep_a_run_from_loading(make_run, tmp_path):
    make_run(tmp_path / "run")
    (tmp_path / "run_metadata.json").write_text('{"ex')
    assert TrainingRunCacher(tmp_path / "run").load().is_complete


def test_what_is_no_complete_run_is_told(make_run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_run(tmp_path / "half", complete=False)
    (tmp_path / "file").touch()

    with pytest.raises(UnreadableFile, match=r"'half'.*a run that is not complete.*manifest.json"):
        TrainingRunCacher("half").load()
    for path in ("file", "nowhere", "file/below"):
        with pytest.raises(UnreadableFile, match=f"'{path}' .*not a directory"):
            TrainingRunCacher(path).load()
        assert not TrainingRunCacher(path).check()


@pytest.mark.parametrize("give", [TrainingRun, str, Path])
def test_a_run_from_elsewhere_is_copied_into_place(make_run, tmp_path, give):
    source = make_run(tmp_path / "elsewhere")
    (source / ".incomplete-7-half").touch()
    target = tmp_path / "cache" / "run"
    make_run(target, loss=9)
    TrainingRunCacher(target).save(give(source))

    assert TrainingRunCacher(target).check()
    assert (TrainingRun(target).metrics()["val/loss"] == [0.5, 0.25]).all()
    assert not (target / "lock").exists()
    assert not (target / ".incomplete-7-half").exists()
    assert (target / "model.ckpt").samefile(source / "model.ckpt")
    assert not (target / "journal.jsonl").samefile(source / "journal.jsonl")
    assert sorted(path.name for path in target.parent.iterdir()) == ["run", "run_metadata.json"]


def test_a_run_that_is_not_complete_takes_no_place(make_run, tmp_path):
    target = make_run(tmp_path / "run")
    source = make_run(tmp_path / "half", complete=False)

    with pytest.raises(UnreadableFile, match="not complete"):
        TrainingRunCacher(target).save(TrainingRun(source))
    for value in (None, 3, {"path": "x"}):
        with pytest.raises(TypeError, match="expected a TrainingRun or the path"):
            TrainingRunCacher(target).save(value)
    assert TrainingRun(target).is_complete


def test_a_full_store_has_the_whole_run_also_of_a_cached_one(experiment, train):
    for _ in range(2):
        manager = experiment(store_full=True)
        train(manager)
        (stored,) = (Path(manager.get_run_output_path()) / "artifacts").glob("*_run")
        assert TrainingRun(stored).is_complete
        assert TrainingRun(stored).log() == "hello\n"
        assert TrainingRunCacher(stored).check()


def test_a_lazy_run_is_loaded_when_it_is_asked_for(experiment, train):
    for expected in (True, False):
        output = Lazy("run")
        state, ran = train(experiment(), output=output)
        assert ran is expected
        assert state is None or isinstance(state, TrainingRun | Lazy)
        assert output.load().is_complete


@dataclass
class Seeded(ExperimentParameters):
    seed: int = 0


def test_interleaved_records_have_runs_of_their_own(experiment, make_run):
    seen = []

    @stage(None, ["run"], [TrainingRunCacher])
    def train(record):
        path = Path(record.stage_cachers[0].get_path())
        return TrainingRun(make_run(path, loss=record.params.seed))

    @stage(["run"], ["loss"])
    def look(record, run):
        seen.append((record.params.seed, run.metrics()["val/loss"].iloc[0]))

    for _ in range(2):  # the second time from the cache
        manager = experiment()
        records = [Record(manager, Seeded(name=f"set {seed}", seed=seed)) for seed in (1, 2)]
        for step in (train, look):
            for record in records:
                step(record)
    assert seen == [(1, 1), (2, 2)] * 2


def test_a_copy_of_a_record_for_other_parameters_finds_the_run_where_it_is(experiment, train):
    manager = experiment()
    trained, _ = train(manager)
    copy = manager.records[0].make_copy(ExperimentParameters(name="other"))

    @stage(["run"], ["kept"], [TrainingRunCacher])
    def keep(record, run):
        return run

    keep(copy)
    (kept,) = Path("data/cache").glob("*_keep_kept")
    assert TrainingRun(kept).is_complete
    assert kept.resolve() != trained.path.resolve()


def test_a_handle_on_nothing_says_so_where_it_is_asked(tmp_path):
    (tmp_path / "a file").write_text("")
    for name in ("typo", "a file"):
        run = TrainingRun(tmp_path / name)
        with pytest.raises(
            FileNotFoundError, match=rf"no manifest\.json\. There is no run '.*{name}"
        ):
            _ = run.manifest
    with pytest.warns(UserWarning, match=r"There is no run '.*typo' \(seen from"):
        assert TrainingRun(tmp_path / "typo").metrics().empty
    start_attempt(tmp_path / "begun", ["train"], world_size=1, nodes=1)
    with pytest.raises(FileNotFoundError, match=r"begun' has no manifest\.json\. Attempt 0 on"):
        _ = TrainingRun(tmp_path / "begun").manifest
