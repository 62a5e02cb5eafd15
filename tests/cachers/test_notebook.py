"""Caching a notebook: what people do to it is theirs, what is torn is not cached."""

import json

import nbformat
import pytest

from curitorch.cachers import NotebookCacher
from curitorch.external.schema import UnreadableFile


def notebook(*sources: str):
    made = nbformat.v4.new_notebook()
    made.cells = [nbformat.v4.new_code_cell(source) for source in sources]
    return made


@pytest.fixture
def path(tmp_path):
    return tmp_path / "a notebook.ipynb"


def test_a_notebook_is_saved_where_jupyter_finds_it_and_loaded_as_its_path(path):
    cacher = NotebookCacher(path)
    assert not cacher.check()
    assert cacher.save(notebook("1 + 1")) == str(path)
    again = NotebookCacher(path)
    assert again.check()
    assert again.load() == path
    assert nbformat.read(path, as_version=4).cells[0].source == "1 + 1"


def test_one_at_another_path_is_copied_and_one_in_its_place_stays(path, tmp_path):
    other = tmp_path / "other.ipynb"
    nbformat.write(notebook("2"), other)
    NotebookCacher(path).save(other)
    assert nbformat.read(path, as_version=4).cells[0].source == "2"
    before = path.read_bytes()
    NotebookCacher(path).save(path)
    assert path.read_bytes() == before


def test_one_that_was_run_or_edited_stays_cached(path):
    NotebookCacher(path).save(notebook("1"))
    nbformat.write(notebook("1", "mine = 2"), path)
    assert NotebookCacher(path).check()


@pytest.mark.parametrize("text", ["", '{"cells": [', "[]", '{"nbformat": 4}', '{"cells": [1]}'])
def test_a_torn_one_is_not_cached_and_cannot_be_loaded(path, text):
    NotebookCacher(path).save(notebook("1"))
    path.write_text(text)
    assert not NotebookCacher(path).check()
    with pytest.raises(UnreadableFile, match="is not a whole notebook"):
        NotebookCacher(path).load()
    NotebookCacher(path).save(notebook("1"))
    assert NotebookCacher(path).check()


def test_what_somebody_wrote_into_it_is_set_aside_before_it_is_written_anew(path):
    NotebookCacher(path).save(notebook("1"))
    for mine in ("first", "second"):
        nbformat.write(notebook("1", mine), path)
        NotebookCacher(path).save(notebook("2"))
        assert [cell.source for cell in nbformat.read(path, as_version=4).cells] == ["2"]
    for number, mine in ((1, "first"), (2, "second")):
        aside = path.with_name(f"a notebook-edited-{number}.ipynb")
        assert nbformat.read(aside, as_version=4).cells[1].source == mine


def test_outputs_alone_are_no_edits(path):
    NotebookCacher(path).save(notebook("1"))
    made = nbformat.read(path, as_version=4)
    made.cells[0].outputs = [nbformat.v4.new_output("stream", text="1\n")]
    made.cells[0].execution_count = 7
    nbformat.write(made, path)
    NotebookCacher(path).save(notebook("2"))
    assert [file.name for file in path.parent.glob("*edited*")] == []


def test_what_is_no_notebook_is_refused_and_nothing_is_written(path):
    with pytest.raises(TypeError, match="expected a notebook of nbformat or the path"):
        NotebookCacher(path).save(3)
    with pytest.raises(nbformat.ValidationError):
        NotebookCacher(path).save({"cells": [{"cell_type": "poem"}]})
    assert not path.exists()


def test_the_same_notebook_twice_is_the_same_file(path, tmp_path):
    content = json.loads(nbformat.writes(notebook("1")))
    NotebookCacher(path).save(content)
    NotebookCacher(tmp_path / "b.ipynb").save(content)
    assert path.read_bytes() == (tmp_path / "b.ipynb").read_bytes()
