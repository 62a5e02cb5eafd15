import functools
import json
import shutil
from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch

from curitorch.cachers import LightningModelCacher, TrainingRun, load_model
from curitorch.external.manifest import write_manifest
from curitorch.external.model import save_model
from curitorch.external.model_class import ModelClassNotFound
from curitorch.external.model_file import UntrustedModel
from curitorch.external.model_record import metadata_path
from curitorch.external.schema import UnreadableFile
from curitorch.params.curifactory_api import ExperimentParameters, Lazy, Record, stage


def run_stage(manager, make, *, output="model", cacher=LightningModelCacher):
    """Run a stage whose model is what `make(path)` returns; return its state and whether it ran."""
    ran = []

    @stage(None, [output], [cacher])
    def train(record):
        ran.append(record)
        return make(Path(record.stage_cachers[0].get_path()))

    record = train(Record(manager, ExperimentParameters(name="test")))
    return record.state[str(output)], bool(ran)


def artifact():
    (path,) = Path("data/cache").glob("*_model.ckpt")
    return path


def same(left, right):
    return type(left) is type(right) and all(
        torch.equal(value, right.state_dict()[key]) for key, value in left.state_dict().items()
    )


def by_a_foreign_trainer(model, path):
    """Write what a Lightning Trainer without our callbacks writes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    save_model(model, path)
    checkpoint = torch.load(path, weights_only=True)
    del checkpoint["curitorch_model"]
    torch.save(checkpoint, path)
    metadata_path(path).unlink()
    return path


def test_a_model_in_memory_is_cached_with_its_class(experiment, nets):
    model = nets.Net(hidden=3)
    assert run_stage(experiment(), lambda path: model) == (model, True)
    cached, ran = run_stage(experiment(), lambda path: None)

    assert not ran
    assert same(cached, model)
    metadata = json.loads(metadata_path(artifact()).read_text())
    assert metadata["artifact_name"] == "model"
    assert metadata["extra"]["type"] == "Net"
    assert metadata["extra"]["module"] == "cached_nets"
    assert metadata["extra"]["bytes"] == artifact().stat().st_size


@pytest.mark.parametrize("give", ["the path", "its text", "nothing"])
def test_a_file_that_a_trainer_wrote_in_place_is_cached(experiment, nets, give):
    model = nets.Net()

    def train(path):
        save_model(model, path)
        return {"the path": path, "its text": str(path), "nothing": None}[give]

    run_stage(experiment(), train)
    cached, ran = run_stage(experiment(), train)
    assert not ran
    assert same(cached, model)
    assert json.loads(metadata_path(artifact()).read_text())["preview"]


def test_a_file_of_a_foreign_trainer_is_cached(experiment, nets, tmp_path):
    model = nets.Net()
    cacher = LightningModelCacher(model_class=nets.Net)
    run_stage(experiment(), lambda path: by_a_foreign_trainer(model, path), cacher=cacher)

    # The class was recorded from what the cacher was told.
    assert same(LightningModelCacher(artifact()).load(), model)
    assert not run_stage(experiment(), None)[1]

    source = by_a_foreign_trainer(model, tmp_path / "source.ckpt")
    unknown = LightningModelCacher(tmp_path / "unknown.ckpt")
    unknown.save(source)
    assert unknown.check()
    assert not (tmp_path / "unknown.ckpt").samefile(source)
    with pytest.raises(ModelClassNotFound, match="model_class=…"):
        unknown.load()
    known = LightningModelCacher(tmp_path / "unknown.ckpt", model_class=nets.Net)
    assert same(known.load(), model)


def test_the_final_model_of_a_run_is_cached(experiment, nets, make_run, tmp_path):
    run = make_run(tmp_path / "run", complete=False)
    model = nets.Net()
    save_model(model, run / "model.ckpt")
    with pytest.raises(UnreadableFile, match="not complete"):
        run_stage(experiment(), lambda path: TrainingRun(run))

    write_manifest(run, [run / "model.ckpt"], step=2, epoch=1, attempts=1)
    for give in (TrainingRun, str):
        path = tmp_path / give.__name__ / "model.ckpt"
        LightningModelCacher(path).save(give(run))
        assert same(load_model(path), model)
        assert path.samefile(run / "model.ckpt")


def test_a_model_is_saved_and_loaded_without_a_stage(nets, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a $b/model.ckpt", "other/model"):
        LightningModelCacher(name).save(nets.Net(hidden=2))
        cacher = LightningModelCacher(name)

        assert cacher.check()
        assert cacher.load().hparams == {"hidden": 2}
        assert cacher.metadata["extra"]["type"] == "Net"
        assert load_model(name).hparams == {"hidden": 2}


@pytest.mark.parametrize("torn", ["model", "metadata"])
@pytest.mark.parametrize("keep", [0, 10, -1, None])
def test_a_torn_model_is_never_cached(experiment, nets, torn, keep):
    run_stage(experiment(), lambda path: nets.Net())
    file = artifact() if torn == "model" else metadata_path(artifact())
    if keep is None:
        file.unlink()
    else:
        keep = -3 if (keep, torn) == (-1, "metadata") else keep  # its last byte is a line's end
        file.write_bytes(file.read_bytes()[:keep])

    assert run_stage(experiment(), lambda path: nets.Net())[1]
    assert not run_stage(experiment(), None)[1]


def test_a_file_that_its_trainer_left_half_written_is_an_error(experiment, nets):
    def killed(path):
        by_a_foreign_trainer(nets.Net(), path)
        path.write_bytes(path.read_bytes()[:-100])

    with pytest.raises(UnreadableFile, match="torn"):
        run_stage(experiment(), killed)
    assert artifact().exists()
    assert run_stage(experiment(), lambda path: nets.Net())[1]

    def altered(path):
        save_model(nets.Net(), path)
        content = path.read_bytes()
        path.write_bytes(content[:-200] + bytes([content[-200] ^ 1]) + content[-199:])

    LightningModelCacher("x.ckpt").save(nets.Net())
    with pytest.raises(UnreadableFile, match="altered"):
        LightningModelCacher("x.ckpt").save(altered(Path("x.ckpt")))


def test_an_interrupted_save_is_not_cached_with_the_record_of_the_model_before(experiment, nets):
    run_stage(experiment(), lambda path: nets.Net(hidden=2))
    path = artifact()
    metadata = metadata_path(path).read_text()
    save_model(nets.Net(hidden=300), path)
    metadata_path(path).write_text(metadata)  # as if killed between the two

    assert not LightningModelCacher(path).check()
    with pytest.raises(UnreadableFile):
        load_model(path)


@pytest.mark.parametrize("value", [3, {"state_dict": {}}, torch.nn.Linear(1, 1), dict])
def test_what_is_no_model_is_told(tmp_path, value):
    with pytest.raises(TypeError, match=r"LightningModelCacher got .* expected a LightningModule"):
        LightningModelCacher(tmp_path / "model.ckpt").save(value)
    assert not list(tmp_path.iterdir())


def test_a_model_of_the_other_lightning_package_is_told_apart(tmp_path):
    import pytorch_lightning

    with pytest.raises(TypeError, match="the two packages do not mix"):
        LightningModelCacher(tmp_path / "model.ckpt").save(pytorch_lightning.LightningModule())


def test_a_file_that_is_not_there_is_told(experiment):
    with pytest.raises(FileNotFoundError, match=r"no model 'data/cache/.*_model.ckpt'"):
        run_stage(experiment(), lambda path: None)


def test_how_to_load_can_be_chosen(nets, tmp_path, monkeypatch):
    path = tmp_path / "model.ckpt"
    LightningModelCacher(path).save(nets.Net())

    class Mine(nets.Net):
        pass

    assert type(LightningModelCacher(path, model_class=Mine).load()) is Mine
    aliases = {"cached_nets:Net": "cached_nets:Renamed"}
    monkeypatch.setattr(nets, "Renamed", type("Renamed", (nets.Net,), {}), raising=False)
    assert type(LightningModelCacher(path, aliases=aliases).load()).__name__ == "Renamed"

    model = nets.Net()
    model.save_hyperparameters({"data": tmp_path})
    LightningModelCacher(path).save(model)
    with pytest.raises(UntrustedModel, match="PosixPath"):
        LightningModelCacher(path).load()
    assert type(LightningModelCacher(path, trusted=True).load()) is nets.Net


def test_options_reach_the_cacher_of_a_stage(experiment, nets):
    class Mine(nets.Net):
        pass

    cacher = LightningModelCacher(model_class=Mine, subdir="models")
    run_stage(experiment(), lambda path: nets.Net(), cacher=cacher)
    loaded, ran = run_stage(experiment(), None, cacher=cacher)
    assert not ran
    assert type(loaded) is Mine
    assert len(list(Path("data/cache/models").glob("*_model.ckpt"))) == 1


def test_a_full_store_has_a_model_that_loads_also_of_a_cached_run(experiment, nets):
    for make in (lambda path: nets.Net(), None):
        manager = experiment(store_full=True)
        run_stage(manager, make)
        (stored,) = (Path(manager.get_run_output_path()) / "artifacts").glob("*_model.ckpt")
        assert LightningModelCacher(stored).check()
        assert type(load_model(stored)) is nets.Net


def test_a_lazy_model_is_loaded_when_it_is_asked_for(experiment, nets):
    for make in (lambda path: save_model(nets.Net(), path) and None, None):
        output = Lazy("model")
        _, ran = run_stage(experiment(), make, output=output)
        assert ran is (make is not None)
        assert type(output.load()) is nets.Net


def test_a_folder_that_was_moved_is_still_cached(nets, tmp_path):
    LightningModelCacher(tmp_path / "old" / "model.ckpt").save(nets.Net())
    shutil.move(tmp_path / "old", tmp_path / "new place")

    cacher = LightningModelCacher(tmp_path / "new place" / "model.ckpt")
    assert cacher.check()
    assert type(cacher.load()) is nets.Net


def test_a_model_keeps_its_trainer_out_of_the_cache(experiment, nets, tmp_path):
    model = nets.Net()
    model.trainer = pl.Trainer(logger=False, accelerator="cpu", default_root_dir=tmp_path)
    run_stage(experiment(), lambda path: model)
    assert set(torch.load(artifact(), weights_only=True)) == {
        "epoch",
        "global_step",
        "pytorch-lightning_version",
        "state_dict",
        "curitorch_model",
        "hparams_name",
        "hyper_parameters",
    }


def test_a_model_with_what_a_pickle_may_run_is_kept_but_not_opened(nets, tmp_path):
    model = nets.Net()
    model.save_hyperparameters({"call": functools.partial(int, "3")})
    path = tmp_path / "source.ckpt"
    save_model(model, path)
    metadata_path(path).unlink()
    cacher = LightningModelCacher(tmp_path / "model.ckpt", model_class=nets.Net)
    cacher.save(path)

    assert cacher.check()
    with pytest.raises(UntrustedModel, match="partial"):
        cacher.load()
