import subprocess
import sys
import zipfile
from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch
from torch.utils.data import DataLoader

from curitorch.external.manifest import write_manifest
from curitorch.external.model import ModelDoesNotFit, load_model, save_model
from curitorch.external.model_class import ModelClassNotFound
from curitorch.external.model_record import (
    describe_model,
    read_model_record,
    write_model_record,
)
from curitorch.external.rundir import TrainingRun


@pytest.fixture
def path(tmp_path):
    return tmp_path / "a $b 'c' ü" / "model.ckpt"


def same(left, right):
    return type(left) is type(right) and all(
        torch.equal(value, right.state_dict()[key]) for key, value in left.state_dict().items()
    )


def trainer_for(folder, **options):
    return pl.Trainer(
        max_steps=3,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
        **options,
    )


def test_a_model_comes_back_as_its_class(zoo, path):
    for kind in (zoo.Net, zoo.Outer.Net, zoo.Outer.Net.Deeper):
        model = kind(hidden=5, name="3e-7")
        save_model(model, path)
        loaded = load_model(str(path))

        assert same(loaded, model)
        assert loaded.hparams == {"hidden": 5, "name": "3e-7"}
        assert loaded.device.type == "cpu"


def test_a_saved_model_is_an_ordinary_lightning_checkpoint(zoo, path):
    model = zoo.Net(hidden=5)
    save_model(model, path)

    assert same(zoo.Net.load_from_checkpoint(path), model)
    assert set(torch.load(path, weights_only=True)) >= {"state_dict", "epoch", "global_step"}
    batches = trainer_for(path.parent).predict(
        zoo.Net(hidden=5), DataLoader(torch.ones(2, 2)), ckpt_path=path
    )
    assert torch.equal(batches[0], model(torch.ones(1, 2)))


def test_a_model_with_a_trainer_attached_leaves_the_trainer_behind(zoo, path, tmp_path):
    model = zoo.Net()
    trainer = trainer_for(tmp_path, enable_checkpointing=False)
    trainer.fit(model, DataLoader(torch.ones(8, 2), batch_size=2))
    record = save_model(model, path)

    assert record["step"] == 3
    loaded = load_model(path)
    assert same(loaded, model)
    assert loaded._trainer is None
    assert model.trainer is trainer


def test_a_file_of_lightnings_own_trainer_needs_only_its_class(zoo, tmp_path):
    model = zoo.Net(hidden=6)
    trainer = trainer_for(tmp_path)
    trainer.fit(model, DataLoader(torch.ones(8, 2), batch_size=2))
    path = tmp_path / "plain.ckpt"
    trainer.save_checkpoint(path)

    assert same(load_model(path, model_class=zoo.Net), model)
    with pytest.raises(ModelClassNotFound, match="Pass the class as model_class=…"):
        load_model(path)


def test_a_class_that_saves_more_than_weights_gets_it_back(zoo, path):
    save_model(zoo.Remembers(), path)
    assert load_model(path).seen == 17


def test_a_class_that_saves_its_settings_as_one_argument_gets_them_back(zoo, path):
    model = zoo.Whole({"hidden": 7})
    save_model(model, path)
    write_model_record(path, describe_model(model, arguments={"config": {"hidden": 7}}))
    assert same(load_model(path), model)


def test_recorded_arguments_fill_in_for_hyperparameters_that_were_not_saved(zoo, path):
    bare = zoo.Bare(9)
    save_model(bare, path)
    with pytest.raises(ModelDoesNotFit, match="save_hyperparameters"):
        load_model(path)
    write_model_record(path, describe_model(bare, arguments={"hidden": 9}))
    assert same(load_model(path), bare)

    partly = zoo.Partly(8, depth="two")
    save_model(partly, path)
    write_model_record(path, describe_model(partly, arguments={"hidden": 5, "depth": "two"}))
    loaded = load_model(path)
    assert same(loaded, partly)
    assert loaded.depth == "two"


def test_a_run_directory_stands_for_its_final_model(zoo, tmp_path):
    run = tmp_path / "data" / "run"
    model = zoo.Net()
    save_model(model, run / "model.ckpt")
    write_manifest(run, [run / "model.ckpt"], step=1, epoch=1, attempts=1)

    assert same(load_model(run), model)
    assert same(TrainingRun(run).model(), model)

    (run / "model.ckpt").unlink()
    with pytest.raises(FileNotFoundError, match="a directory without"):
        load_model(run)


def test_a_model_that_is_not_there_is_named_with_the_working_directory(tmp_path):
    with pytest.raises(FileNotFoundError) as failure:
        load_model("no/such/model.ckpt")
    assert "no/such/model.ckpt" in str(failure.value)
    assert str(Path.cwd()) in str(failure.value)


def test_a_lone_file_says_itself_which_class_it_is_of(zoo, path, tmp_path):
    model = zoo.Outer.Net.Deeper(hidden=2)
    save_model(model, path)
    lone = tmp_path / "renamed.pt"
    path.rename(lone)

    assert read_model_record(lone) is None
    assert same(load_model(lone), model)


def test_a_renamed_class_is_loaded_through_an_alias(zoo, path, monkeypatch):
    save_model(zoo.Net(), path)
    monkeypatch.setattr(zoo, "Renamed", zoo.Net, raising=False)
    monkeypatch.delattr(zoo, "Net")

    with pytest.raises(ModelClassNotFound, match=r"zoo\.models:Net"):
        load_model(path)
    loaded = load_model(path, aliases={"zoo.models:Net": "zoo.models:Renamed"})
    assert type(loaded) is zoo.Renamed


def test_the_class_can_be_given(zoo, path):
    save_model(zoo.Net(), path)

    assert type(load_model(path, model_class=zoo.Outer.Net)) is zoo.Outer.Net
    with pytest.raises(ModelClassNotFound, match="expected a subclass"):
        load_model(path, model_class=dict)
    with pytest.raises(ModelDoesNotFit, match=r"does not fit the class 'zoo.models:Any'.*what"):
        load_model(path, model_class=zoo.Any)
    with pytest.raises(ModelDoesNotFit, match="size mismatch"):
        load_model(path, model_class=type("Net", (zoo.Base,), {"__init__": _three_wide(zoo.Base)}))


def _three_wide(base):
    def __init__(self):  # noqa: N807  # it becomes one
        base.__init__(self, 3)

    return __init__


def test_a_name_that_lightning_keeps_for_itself_is_told(zoo, path):
    save_model(zoo.Reserved(strict=False), path)
    write_model_record(path, describe_model(zoo.Reserved(True), arguments={"strict": True}))
    with pytest.raises(ModelDoesNotFit, match=r"\['strict'\]"):
        load_model(path)


def test_the_same_model_is_the_same_file(zoo, tmp_path):
    model = zoo.Net()
    files = []
    for name in ("a", "b ü", "c.ckpt"):  # a name without a suffix is nothing to torch
        save_model(model, tmp_path / name)
        with zipfile.ZipFile(tmp_path / name) as archive:
            files.append(archive.namelist())
    assert files[0] == files[1] == files[2]


def test_what_cannot_be_saved_leaves_the_old_file(zoo, path):
    model = zoo.Net()
    save_model(model, path)

    with pytest.raises(ModelDoesNotFit, match="save_hyperparameters"):
        save_model(zoo.Any(lambda: 3), path)
    with pytest.raises(ModelClassNotFound, match="expected a subclass"):
        save_model(torch.nn.Linear(1, 1), path)
    assert same(load_model(path), model)
    assert sorted(file.name for file in path.parent.iterdir()) == [
        "model.ckpt",
        "model_metadata.json",
    ]


def test_where_the_model_goes_can_be_chosen(zoo, path):
    save_model(zoo.Net(), path)

    asked = []
    load_model(path, map_location=lambda storage, where: asked.append(where))
    assert "cpu" in asked
    assert load_model(path, map_location=torch.device("cpu")).device.type == "cpu"
    if not torch.cuda.is_available():
        with pytest.raises(RuntimeError, match=r"(?i)cuda"):
            load_model(path, map_location="cuda:0")


SCRIPT = """
import sys, torch
from lightning.pytorch import LightningModule
from curitorch.external.model import load_model, save_model
from pathlib import Path

class Here(LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)

if sys.argv[1] == "save":
    save_model(Here(), Path(sys.argv[2]))
else:
    print(type(load_model(sys.argv[2])).__module__)
    print(type(load_model(sys.argv[3], model_class=Here)).__module__)
    try:
        load_model(sys.argv[3])
    except LookupError as error:
        print(error)
"""


@pytest.mark.slow
def test_any_working_directory_reloads_a_project_that_was_moved(zoo, tmp_path):
    project = tmp_path / "old place"
    (project / "zoo").mkdir(parents=True)
    (project / "zoo" / "models.py").write_text(Path(zoo.__file__).read_text())
    save_model(zoo.Net(), project / "data" / "cache" / "model.ckpt")
    moved = tmp_path / "new place"
    project.rename(moved)
    script = tmp_path / "elsewhere" / "notebook.py"
    script.parent.mkdir()
    script.write_text(SCRIPT)
    in_main = tmp_path / "in main.ckpt"

    def run(*words):
        done = subprocess.run(
            [sys.executable, str(script), *words],
            cwd=script.parent,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    run("save", str(in_main))
    relative = "../new place/data/cache/model.ckpt"
    lines = run("load", relative, str(in_main))

    assert lines[:2] == ["zoo.models", "__main__"]
    assert "'__main__:Here' was defined in a script or notebook" in lines[2]
