"""What the cells of a notebook call: in a folder of runs that are whole, torn, moved or gone."""

import subprocess
import sys

import pytest
import torch

import curitorch.external.exploration as explore
from curitorch.external.stores.local import LocalStore

PATHS = {"one": "one_run", "two": "two_run"}
DATA = "shapes_data:loaders"


@pytest.fixture
def runs(project):
    return explore.runs(PATHS, home="cache")


@pytest.fixture
def told(capsys):
    """Return what was said since the last time."""
    return lambda: capsys.readouterr().out


@pytest.mark.parametrize("place", ["cache", ".", "cache/one_run", "notebooks/mine"])
def test_runs_are_found_from_beside_them_and_from_anywhere_in_the_project(
    project, monkeypatch, told, place
):
    (project / place).mkdir(parents=True, exist_ok=True)
    monkeypatch.chdir(project / place)
    found = explore.runs(PATHS, home="cache")
    assert found.folder.resolve() == project / "cache"
    assert [run.is_complete for run in found.values()] == [True, True]
    assert not any(run.path.is_absolute() and place == "cache" for run in found.values())
    assert told() == ""


def test_the_editors_word_for_the_notebooks_folder_counts_first(project, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (project / "cache/mine.ipynb").write_text("{}")
    monkeypatch.setenv("JPY_SESSION_NAME", str(project / "cache/mine.ipynb"))
    assert explore.runs(PATHS)["one"].is_complete


def test_a_notebook_away_from_its_runs_says_what_to_do(project, monkeypatch, tmp_path, told):
    monkeypatch.chdir(tmp_path)
    lost = explore.runs(PATHS, home="cache")
    assert "None of the 2 runs is where this notebook expects it" in told()
    assert "There is no run" in lost._repr_html_()
    assert explore.runs(PATHS, folder=project / "cache")["two"].is_complete
    assert told() == ""


def test_several_runs_are_a_table_and_one_is_shown_whole(runs):
    shown = runs._repr_html_()
    assert shown.count(">complete</span>") == 2
    assert "val/loss" in explore.runs({"one": "one_run"}, home="cache")._repr_html_()


def test_models_are_reloaded_as_their_classes_ready_to_predict(runs, told):
    models = explore.models(runs)
    assert [type(model).__name__ for model in models.values()] == ["Shapes", "Shapes"]
    assert not any(model.training for model in models.values())
    assert told() == ""


def test_of_a_run_that_was_stopped_the_newest_checkpoint_is_taken_and_that_is_said(
    project, runs, told
):
    run = runs["two"]
    kept = run.model_path.rename(project / "kept.ckpt")
    run.layout.manifest.unlink()
    assert list(explore.models(runs)) == ["one"]
    assert "two: no model, for there is no whole checkpoint yet." in told()
    with LocalStore(run.layout.checkpoints) as store:
        store.put(3, {"model.ckpt": kept})
    assert list(explore.models(runs)) == ["one", "two"]
    assert "two: not the final model but that of step 3." in told()


def test_a_model_that_is_torn_altered_or_of_no_class_is_a_sentence(
    project, runs, told, monkeypatch
):
    path = runs["one"].model_path
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))  # of the same size
    assert list(explore.models(runs)) == ["two"]
    assert "one: no model." in (said := told())
    assert "checksum" in said
    monkeypatch.setitem(sys.modules, "shapes_model", None)
    assert explore.models(runs) == {}
    said = told()
    assert "'shapes_model:Shapes' cannot be imported" in said
    assert "model_class=" in said
    assert "Traceback" not in said


@pytest.mark.parametrize(("part", "found"), [("test", "val"), ("val", "val"), ("train", "train")])
def test_samples_are_the_first_of_the_loader_that_there_is(runs, part, found):
    samples = explore.samples(runs, "shapes.npz", DATA, count=5, part=part)
    assert (samples.part, samples.count) == (found, 5)
    assert [len(each) for each in samples.batch] == [5, 5]
    again = explore.samples(runs, "shapes.npz", DATA, count=5, part=part)
    assert torch.equal(samples.inputs, again.inputs)  # also of a loader that shuffles


def test_looking_at_samples_leaves_the_random_numbers_of_the_notebook_alone(runs):
    torch.manual_seed(1)
    expected = torch.rand(1)
    torch.manual_seed(1)
    explore.samples(runs, "shapes.npz", DATA, part="train")
    assert torch.equal(torch.rand(1), expected)


def test_data_arguments_reach_the_data(runs):
    samples = explore.samples(runs, "shapes.npz", DATA, {"flat": True}, count=2)
    assert samples.inputs.shape == (2, 64)


@pytest.mark.parametrize(
    ("dataset", "data", "words"),
    [
        ("moved.npz", DATA, "It was moved or deleted: say where it is now"),
        ("shapes.npz", None, "nobody said what reads the dataset"),
        ("shapes.npz", "shapes_data", "does not name an object"),
        ("shapes.npz", "no_such_module:loaders", "there is no module 'no_such_module'"),
        ("shapes.npz", "shapes_data:nothing", "has no 'nothing'"),
        ("shapes.npz", "shapes_data:broken", "RuntimeError for"),
        ("one_run/journal.jsonl", DATA, f"{DATA!r} raised"),
    ],
)
def test_a_dataset_that_cannot_be_read_is_a_sentence(runs, told, dataset, data, words):
    assert explore.samples(runs, dataset, data) is None
    assert words in told()
    assert explore.predict({}, None) is None
    assert "No predictions" in told()


def test_a_dataset_elsewhere_is_given_by_its_whole_path(project, runs, tmp_path):
    moved = (project / "cache/shapes.npz").rename(tmp_path / "moved.npz")
    assert explore.samples(runs, moved, DATA).count == 16


def test_the_module_of_the_data_is_found_in_the_project_around_the_notebook(runs, project):
    (project / "near_data.py").write_text("from shapes_data import loaders\n")
    assert explore.samples(runs, "shapes.npz", "near_data:loaders").count == 16
    sys.path.remove(str(project))


def test_classes_are_predicted_with_their_share_and_shown_with_images(runs):
    samples = explore.samples(runs, "shapes.npz", DATA, count=4)
    predicted = explore.predict(explore.models(runs), samples)
    assert set(predicted.outputs) == {"one", "two"}
    assert predicted.outputs["one"].shape == (4, 3)
    assert not predicted.outputs["one"].requires_grad
    shown = predicted._repr_html_()
    chosen = predicted.outputs["two"].argmax(1).tolist()
    right = sum(c == t for c, t in zip(chosen, [0, 1, 2, 0], strict=True))
    assert f"two: {right} of 4 right" in shown
    assert f"<td>{chosen[0]} (" in shown
    assert 'src="data:image/png;base64,' in shown


def test_numbers_and_samples_without_targets_are_shown_too(runs):
    from shapes_model import Sum

    samples = explore.samples(runs, "shapes.npz", "shapes_data:unlabelled", count=3)
    assert (samples.part, samples.targets, samples.inputs.shape) == ("train", None, (3, 8, 8))
    labelled = explore.samples(runs, "shapes.npz", DATA, count=3)
    predicted = explore.predict({"sum": Sum()}, labelled)
    assert torch.allclose(predicted.outputs["sum"], labelled.inputs.sum((1, 2)))
    shown = predicted._repr_html_()
    assert "sum: mean absolute error" in shown
    assert f"<td>{predicted.outputs['sum'][0].item():.4g}</td>" in shown


def test_a_model_that_cannot_take_the_samples_says_so_and_the_others_go_on(runs, told):
    models = explore.models(runs)
    models["two"].layer = torch.nn.Linear(3, 3)
    samples = explore.samples(runs, "shapes.npz", DATA, count=2)
    assert list(explore.predict(models, samples).outputs) == ["one"]
    said = told()
    assert "two: no predictions. Shapes raised RuntimeError" in said
    assert "[float32 (2, 8, 8), int64 (2,)]" in said
    own = explore.predict(models, samples, how=lambda model, batch: batch[1].float())
    assert own.outputs["two"].tolist() == [0.0, 1.0]


def test_predicting_leaves_the_mode_of_a_model_as_it_was(runs):
    models = explore.models(runs)
    models["one"].train()
    explore.predict(models, explore.samples(runs, "shapes.npz", DATA))
    assert (models["one"].training, models["two"].training) == (True, False)


def test_runs_are_compared_with_what_tells_them_apart(project, runs):
    (project / "cache/one_run/report").mkdir()
    (project / "cache/one_run/report/test.json").write_text('{"test/acc": 0.9, "loss": 1}')
    (project / "cache/one_run/report/torn.json").write_text('{"test/a')
    (project / "cache/two_run/manifest.json").unlink()
    frame = explore.compare(runs, {"one": {"seed": 1}, "two": {"seed": 2}})
    assert list(frame.index) == ["one", "two"]
    assert frame["seed"].tolist() == [1, 2]
    assert frame["state"].tolist() == ["complete", "torn"]
    assert frame["step"].tolist() == [4, 4]
    assert frame["val/loss"].tolist() == [0.5, 0.25]
    assert frame.loc["one", ["test/acc", "test: loss"]].tolist() == [0.9, 1]
    assert frame["test/acc"].isna().tolist() == [False, True]


def test_without_runs_there_are_no_curves_and_that_is_said(project, told):
    explore.curves(explore.runs({"gone": "gone_run"}, folder=project))
    assert "There are no curves" in told()


def test_the_curves_of_a_newer_journal_are_a_sentence(project, runs, told):
    for run in runs.values():
        run.layout.journal.write_text('{"event": "attempt", "schema": 99, "attempt": 0}\n')
    explore.curves(runs)
    assert told().count("no curves. ") == 2


def test_the_picture_is_shown_without_widgets_and_stays_beside_them(runs, monkeypatch):
    from IPython.display import Image

    shown = []

    class Handle:
        def update(self, image):
            shown.append(image)

    def display(thing, **options):
        shown.append(thing)
        return Handle()

    monkeypatch.setattr("IPython.display.display", display)
    explore.curves(runs, widgets=False)
    assert [type(thing) for thing in shown] == [Image]
    explore.curves(runs, widgets=True)
    [_, controls, picture] = shown
    names, families, axis, y_axis, smoothing = controls.children
    assert names.options == ("one", "two")
    assert families.options == ("loss",)
    assert picture.data == shown[0].data
    for control, value in ((axis, "epoch"), (y_axis, "log"), (smoothing, 0.5), (names, ("two",))):
        before = shown[-1].data
        control.value = value
        assert shown[-1].data != before
    before = len(shown)
    names.value = ()  # nothing to draw: what was shown stays
    assert len(shown) == before


def test_all_of_it_imports_without_torch_and_curifactory():
    code = "import sys, curitorch.external.exploration; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert {"torch", "lightning", "curifactory", "matplotlib"}.isdisjoint(done.stdout.split())
