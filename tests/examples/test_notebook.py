"""What an experiment trained, reloaded in a notebook that runs somewhere else."""

import nbformat
from nbclient import NotebookClient

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
    resources = {"metadata": {"path": str(elsewhere)}}
    NotebookClient(notebook, timeout=120, resources=resources).execute()
    assert notebook.cells[2].outputs[0].text == "digits.model DigitsClassifier\n"
    assert notebook.cells[3].outputs[-1].text == "True True 261\n"
