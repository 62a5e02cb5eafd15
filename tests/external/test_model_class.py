import sys
import textwrap
from pathlib import Path

import pytest

from curitorch.external.model_class import ModelClassNotFound, check_class, find_class

NETS = """
    from lightning.pytorch import LightningModule

    class Net(LightningModule):
        class Inner(LightningModule):
            pass

    class NotAModel:
        pass

    value = 3

    def make():
        class Local(LightningModule):
            pass
        return Local
"""


@pytest.fixture
def project(tmp_path, monkeypatch, request):
    """A project that no path leads to, with a module of its own name for every test."""
    tmp_path.chmod(0o755)
    name = f"project_{abs(hash(request.node.name))}"
    package = tmp_path / "home of a project" / name
    (package / "deep").mkdir(parents=True)
    (package / "deep" / "nets.py").write_text(textwrap.dedent(NETS))
    monkeypatch.setattr(sys, "path", list(sys.path))
    return package


@pytest.fixture
def artifact(project):
    folder = project.parent / "data" / "cache" / "run"
    folder.mkdir(parents=True)
    return folder / "model.ckpt"


def record_of(project: Path, qualname: str, module: str = "deep.nets") -> dict[str, str]:
    return {"module": f"{project.name}.{module}", "qualname": qualname}


def test_a_class_is_found_above_the_artifact_also_when_it_is_nested(project, artifact):
    assert find_class(record_of(project, "Net"), near=artifact).__qualname__ == "Net"
    assert find_class(record_of(project, "Net.Inner"), near=artifact).__name__ == "Inner"
    assert sys.path[-1] == str(project.parent)
    assert sys.path.count(str(project.parent)) == 1


def test_a_class_is_found_above_a_path_that_is_relative_or_linked(project, artifact, tmp_path):
    elsewhere = tmp_path / "big disk"
    elsewhere.mkdir()
    artifact.parent.rmdir()
    artifact.parent.symlink_to(elsewhere, target_is_directory=True)
    roundabout = artifact.parent / ".." / "run" / "model.ckpt"

    assert find_class(record_of(project, "Net"), near=roundabout).__name__ == "Net"


def test_a_class_beside_or_below_the_artifact_is_not_searched_for(project, tmp_path):
    beside = tmp_path / "other" / "data" / "model.ckpt"
    beside.parent.mkdir(parents=True)

    with pytest.raises(ModelClassNotFound, match="No module named"):
        find_class(record_of(project, "Net"), near=beside)


def test_a_folder_that_anybody_may_write_to_is_not_searched(project, artifact):
    project.parent.chmod(0o1777)

    with pytest.raises(ModelClassNotFound, match="not everybody may write to"):
        find_class(record_of(project, "Net"), near=artifact)
    assert str(project.parent) not in sys.path


def test_a_renamed_class_is_found_through_an_alias(project, artifact):
    aliases = {"old.place:Old.Name": f"{project.name}.deep.nets:Net.Inner"}

    found = find_class(
        {"module": "old.place", "qualname": "Old.Name"}, near=artifact, aliases=aliases
    )
    assert found.__name__ == "Inner"


@pytest.mark.parametrize(
    ("module", "qualname", "says"),
    [
        ("deep.gone", "Net", "deep.gone"),
        ("deep.nets.Net", "Inner", "No module named"),
        ("deep.nets", "Gone", "no 'Gone' there"),
        ("deep.nets", "Net.Gone", "no 'Gone' there"),
        ("deep.nets", "NotAModel", "expected a subclass of lightning.pytorch.LightningModule"),
        ("deep.nets", "value", "is 3, expected a subclass"),
        ("deep.nets", "make", "is <function make"),
        ("deep.nets", "make.<locals>.Local", "inside a function"),
        ("deep.nets", "", "expected 'package.module:Class'"),
    ],
)
def test_a_class_that_cannot_be_used_is_named(project, artifact, module, qualname, says):
    with pytest.raises(ModelClassNotFound) as failure:
        find_class(record_of(project, qualname, module), near=artifact)
    assert says in str(failure.value)
    assert f"{project.name}.{module}:{qualname}" in str(failure.value)


@pytest.mark.parametrize("module", ["__main__", "", "..", "/etc/x", "a..b", "a b", None, 3])
def test_a_module_that_is_no_module_is_named(artifact, module):
    with pytest.raises(ModelClassNotFound, match="model_class=…"):
        find_class({"module": module, "qualname": "Net"}, near=artifact)


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("import no_such_module_at_all", "no_such_module_at_all"),
        ("1 / 0", "ZeroDivisionError"),
        ("def (", "SyntaxError"),
        ("raise SystemExit(3)", "SystemExit(3)"),
    ],
)
def test_a_module_that_fails_to_import_says_why(project, artifact, source, says):
    (project / "deep" / "broken.py").write_text(source)

    with pytest.raises(ModelClassNotFound) as failure:
        find_class(record_of(project, "Net", "deep.broken"), near=artifact)
    assert says in str(failure.value)


def test_a_class_of_the_other_lightning_package_is_told_apart():
    import pytorch_lightning

    class Net(pytorch_lightning.LightningModule):
        pass

    with pytest.raises(ModelClassNotFound, match="the two packages do not mix"):
        check_class(Net, name="Net")
