"""The notebook that a stage writes: for one run, for a sweep, for what is missing."""

import ast
import builtins
import json

import nbformat
import pytest

from curitorch.stages.notebook_cells import Exploration, notebook_of

EXPERIMENT = """
    import json
    from pathlib import Path

    import curifactory as cf
    from curitorch.cachers import DatasetCacher, TrainingRunCacher
    from curitorch.external.manifest import write_manifest
    from curitorch.external.rundir import TrainingRun
    from curitorch.stages import exploration_notebook, sweep_notebook

    @cf.stage([], ["dataset"], [DatasetCacher(extension=".txt")])
    def make(record):
        path = Path(record.stage_cachers[0].get_path())
        path.write_text("data")
        return path

    @cf.stage(["dataset"], ["run"], [TrainingRunCacher])
    def train(record, dataset):
        path = Path(record.stage_cachers[0].get_path())
        path.mkdir(exist_ok=True)
        (path / "model.ckpt").write_bytes(b"model")
        write_manifest(path, [path / "model.ckpt"], step=1, epoch=0, attempts=1)
        return TrainingRun(path)

    explore = exploration_notebook()
    explore_all = sweep_notebook(count=4)

    def run(param_sets, manager):
        records = [cf.Record(manager, params) for params in param_sets]
        for record in records:
            if record.params.name == "failed" and Path("fail").exists():
                make(record)
            else:
                explore(train(make(record)))
        explore_all(cf.Record(manager, None), records)
"""

PARAMS = """
    from dataclasses import dataclass
    from curitorch.params import TrainerParams, TrainingParams

    @dataclass
    class Params(TrainingParams):
        noise: float = 0.0

    def get_params():
        return [
            Params(name=name, noise=noise, trainer=TrainerParams(
                model="toy.model:Net", data="toy.data:loaders", epochs=3, data_args={"a": True},
                model_args={"width": width}))
            for name, noise, width in {names}
        ]
"""
TWO = [("one", 0.5, 1), ("it's two", float("inf"), 2)]


@pytest.fixture
def quick_project(project):
    """A project whose training is a file: its notebooks are what counts."""

    def write(names=TWO):
        shown = str(names).replace("inf", "float('inf')")
        project.write(
            {"experiments/toy.py": EXPERIMENT, "params/one.py": PARAMS.replace("{names}", shown)}
        )
        return project

    return write


def notebooks(project, stage: str) -> list:
    return sorted((project.path / "data/cache").glob(f"*_{stage}_notebook.ipynb"))


def sources(path) -> str:
    read = nbformat.read(path, as_version=4)
    nbformat.validate(read)
    for cell in read.cells:
        if cell.cell_type == "code":
            ast.parse(cell.source)
    return "\n".join(cell.source for cell in read.cells)


def test_one_run_and_a_sweep_have_notebooks_with_relative_paths_only(quick_project):
    project = quick_project()
    done = project.run()
    assert done.returncode == 0, done.stdout + done.stderr
    first, second = (sources(path) for path in notebooks(project, "explore"))
    [every] = (sources(path) for path in notebooks(project, "explore_all"))
    for text in (first, second, every):
        assert str(project.path) not in text
        assert 'home="data/cache"' in text
        assert '"toy.data:loaders"' in text
        assert '{"a": True}' in text
    [own] = [text for text in (first, second) if "toy: one" in text]
    assert own.count("_train_run") == 1
    assert "explore.compare" not in own
    assert every.count("_train_run") == 2
    assert "toy: 2 runs" in every
    [call] = [
        node
        for node in ast.walk(ast.parse(every.partition("## Comparison")[2].partition("##")[0]))
        if isinstance(node, ast.Call)
    ]
    assert ast.literal_eval(call.args[1]) == {
        "one": {"noise": 0.5, "trainer.model_args.width": 1},
        "it's two": {"noise": "inf", "trainer.model_args.width": 2},
    }
    assert "count=4" in every


def test_a_run_again_writes_nothing_and_overwriting_sets_an_edited_one_aside(quick_project):
    project = quick_project()
    assert project.run().returncode == 0
    [path] = notebooks(project, "explore_all")
    made = nbformat.read(path, as_version=4)
    made.cells.append(nbformat.v4.new_markdown_cell("what I found"))
    nbformat.write(made, path)
    mine = path.read_bytes()
    assert project.run().returncode == 0
    assert path.read_bytes() == mine
    done = project.run("--overwrite")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "what I found" not in path.read_text()
    [aside] = path.parent.glob("*edited*")
    assert aside.read_bytes() == mine


def test_a_record_whose_training_left_no_run_is_named_until_there_is_one(quick_project):
    project = quick_project([("one", 0.5, 1), ("failed", 0.5, 2)])
    (project.path / "fail").touch()
    done = project.run()
    assert done.returncode == 0, done.stdout + done.stderr
    [path] = notebooks(project, "explore_all")
    assert "**No run was left by `failed`**" in sources(path)
    (project.path / "fail").unlink()
    assert project.run().returncode == 0
    assert "No run was left" not in sources(path)
    assert sources(path).count("_train_run") == 2


def test_parallel_children_and_dry_runs_leave_what_they_should(quick_project):
    project = quick_project()
    done = project.run("--dry")
    assert done.returncode == 0, done.stdout + done.stderr
    assert notebooks(project, "explore") == []
    done = project.run("--parallel", "2")
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(notebooks(project, "explore")) == 2
    # curifactory lets each child aggregate its own record; the parent's is about all of them.
    assert any("toy: 2 runs" in sources(path) for path in notebooks(project, "explore_all"))


def test_a_dataset_outside_the_project_keeps_its_whole_path(quick_project, tmp_path):
    project = quick_project()
    project.change(
        "experiments/toy.py",
        'DatasetCacher(extension=".txt")',
        f"DatasetCacher({str(tmp_path / 'elsewhere.txt')!r})",
    )
    assert project.run().returncode == 0
    [path] = notebooks(project, "explore_all")
    assert json.dumps(str(tmp_path / "elsewhere.txt")) in sources(path)


def test_a_cache_that_is_a_link_to_another_disk_still_has_relative_paths(quick_project, tmp_path):
    project = quick_project()
    (tmp_path / "big disk").mkdir()
    (project.path / "data").symlink_to(tmp_path / "big disk")
    done = project.run()
    assert done.returncode == 0, done.stdout + done.stderr
    [path] = notebooks(project, "explore_all")
    assert str(tmp_path) not in sources(path)


def about(**changes) -> Exploration:
    given = {"title": "t", "made_by": "m", "home": ".", "runs": {"one": "one_run"}, **changes}
    return Exploration(**given)


@pytest.mark.parametrize(
    "name", ["it's", 'a "quoted" one', "two\nlines", "back\\slash", "ü → ∞", "'''", "{x}", "\x00"]
)
def test_names_of_any_kind_are_python_again_in_the_notebook(name):
    made = notebook_of(about(runs={name: "run", "other": "run2"}, datasets={name: "d", "o": "e"}))
    [cell] = [cell for cell in made.cells if "explore.runs(" in cell.source]
    [call] = [n for n in ast.walk(ast.parse(cell.source)) if isinstance(n, ast.Call)]
    assert ast.literal_eval(call.args[0]) == {name: "run", "other": "run2"}
    for cell in made.cells:
        if cell.cell_type == "code":
            ast.parse(cell.source)


def test_a_notebook_without_data_or_runs_is_still_a_notebook():
    for each in (about(), about(runs={}, missing=("one", "two"))):
        made = notebook_of(each)
        nbformat.validate(made)
        assert 'as "package.module:Name"' in "\n".join(cell.source for cell in made.cells)
    assert "by `one`, `two`" in made.cells[0].source
    assert notebook_of(about()) == notebook_of(about())


def test_without_nbformat_the_extra_is_named(monkeypatch):
    imported = builtins.__import__

    def without(name, *rest):
        if name == "nbformat":
            raise ImportError("no nbformat")
        return imported(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match=r'pip install "curitorch\[notebook\]"'):
        notebook_of(about())
