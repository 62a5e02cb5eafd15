"""What an experiment trained, reloaded in a notebook that runs somewhere else."""

import html
import re
import shutil

import nbformat
import pytest

from tests.notebooks import execute

BY_HAND = """
import sys
import numpy as np
import torch
sys.path.insert(0, {project!r})
from digits.model import DigitsClassifier
by_hand = DigitsClassifier.load_from_checkpoint({model!r}, map_location="cpu").eval()
with np.load({dataset!r}) as arrays:
    images = torch.from_numpy(arrays["test_images"])
with torch.no_grad():
    same = torch.equal(model.eval()(images), by_hand(images))
print(type(model) is DigitsClassifier, same, len(images))
"""


def test_a_model_is_reloaded_in_one_line_from_any_folder(digits_project, tmp_path):
    project, _ = digits_project
    [model] = project.path.glob("data/cache/*_train_run/model.ckpt")
    [dataset] = project.path.glob("data/cache/*.npz")
    paths = {"project": str(project.path), "model": str(model), "dataset": str(dataset)}
    notebook = nbformat.v4.new_notebook()
    notebook.cells = [
        nbformat.v4.new_code_cell("from curitorch.cachers import load_model"),
        nbformat.v4.new_code_cell(f"model = load_model({str(model)!r})"),
        nbformat.v4.new_code_cell("print(type(model).__module__, type(model).__qualname__)"),
        nbformat.v4.new_code_cell(BY_HAND.format(**paths)),
    ]
    elsewhere = tmp_path / "notebooks"
    elsewhere.mkdir()
    execute(notebook, cwd=elsewhere)
    assert notebook.cells[2].outputs[0].text == "digits.model DigitsClassifier\n"
    assert notebook.cells[3].outputs[-1].text == "True True 261\n"


def notebook_in(folder):
    [path] = folder.glob("*_explore_notebook.ipynb")
    return nbformat.read(path, as_version=4)


def executed(notebook, *, cwd, ends_with: str = ""):
    """Run a notebook, with one more cell at its end; returns its outputs."""
    if ends_with:
        notebook.cells.append(nbformat.v4.new_code_cell(ends_with))
    execute(notebook, cwd=cwd)
    return [output for cell in notebook.cells for output in cell.get("outputs", [])]


def text_of(outputs) -> str:
    found = [(o.get("text", ""), o.get("data", {}).get("text/html", "")) for o in outputs]
    plain = [o.get("data", {}).get("text/plain", "") for o in outputs]
    return "\n".join("\n".join(each) for each in (*found, plain))


def check(outputs, *, folder) -> None:
    """Check that everything in the notebook is there, and comes from `folder`."""
    text = text_of(outputs)
    assert [output for output in outputs if output.output_type == "error"] == []
    for part in (">complete</span>", "step-00000300/model.ckpt", "DigitsClassifier("):
        assert part in text
    right = re.search(r"quick: (\d+) of 16 right", text)
    assert int(right[1]) >= 14
    images = [output for output in outputs if "image/png" in output.get("data", {})]
    assert len(images) == 1  # the curves, which stay without their controls
    controls = "application/vnd.jupyter.widget-view+json"
    assert any(controls in output.get("data", {}) for output in outputs)
    assert 'alt="quick: samples" src="data:image/png;base64,' in text
    assert str(folder) in outputs[-1].text
    assert outputs[-1].text.count(str(folder)) == 2


WHERE = """
import sys
assert "curifactory" not in sys.modules
print(runs["quick"].path.resolve().parent)
print(sys.modules["digits.model"].__file__)
"""


@pytest.fixture(scope="module")
def moved_project(digits_project, tmp_path_factory):
    """A copy of the project in another place, with an archive, after which the cache is gone."""
    project, first = digits_project
    assert first.returncode == 0, first.output
    folder = tmp_path_factory.mktemp("moved")
    moved = type(project)(folder / "moved and renamed")
    shutil.copytree(project.path, moved.path, symlinks=True)
    again = moved.run("digits", "-p", "quick", "--store-full", witnesses=folder / "archived")
    assert again.returncode == 0, again.output
    assert "Launching:" not in again.output
    [archive] = moved.path.glob("data/runs/*/artifacts")
    return moved.path, archive


def test_the_notebook_works_beside_its_run(digits_project):
    project, _ = digits_project
    cache = project.path / "data/cache"
    check(executed(notebook_in(cache), cwd=cache, ends_with=WHERE), folder=project.path.resolve())


@pytest.mark.slow
def test_the_notebook_works_in_a_moved_project_opened_from_its_root(moved_project):
    moved, _ = moved_project
    notebook = notebook_in(moved / "data/cache")
    check(executed(notebook, cwd=moved, ends_with=WHERE), folder=moved.resolve())


def test_the_notebook_works_from_an_archive_when_the_cache_is_gone(moved_project, tmp_path):
    moved, archive = moved_project
    cache = (moved / "data/cache").rename(tmp_path / "gone")
    try:
        outputs = executed(notebook_in(archive), cwd=archive, ends_with=WHERE)
        check(outputs, folder=moved.resolve())
        assert str(archive.resolve()) in outputs[-1].text
    finally:
        cache.rename(moved / "data/cache")


def test_what_is_moved_torn_or_missing_is_a_sentence_in_the_notebook(moved_project, tmp_path):
    moved, _ = moved_project
    folder = tmp_path / "broken"
    shutil.copytree(moved / "data/cache", folder)
    [dataset] = folder.glob("*_dataset.npz")
    dataset.unlink()
    [run] = folder.glob("*_train_run")
    (run / "journal.jsonl").open("ab").write(b'{"event": "metric", "st')
    with (run / "model.ckpt").open("r+b") as file:
        file.truncate(1000)
    outputs = executed(notebook_in(folder), cwd=folder)  # nor is the user's code around it
    text = html.unescape(text_of(outputs))
    assert [output for output in outputs if output.output_type == "error"] == []
    assert "has 1000 bytes, recorded are" in text
    assert "The model's class 'digits.model:DigitsClassifier' cannot be imported" in text
    assert f"{dataset.name}' is not there" in text
    assert "No predictions: there are no models, see above." in text
    assert "Traceback" not in text
    assert any("image/png" in output.get("data", {}) for output in outputs)  # curves, all the same
