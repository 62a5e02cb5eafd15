"""Who imports whom: the table of the design, read off the source and seen in real processes."""

import ast
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
MAY_IMPORT = {  # besides itself
    "params": set(),
    "external": {"params"},
    "cachers": {"params", "external"},
    "stages": {"params", "external", "cachers"},
}
HEAVY = {"torch", "lightning", "pytorch_lightning", "torchmetrics"}
CURIFACTORY_FILES = {"params/curifactory_api.py"}
NEED_CURIFACTORY = {"params/curifactory_api.py", "params/experiment.py"}
READ_WITHOUT_TORCH = [  # what is said about a run is read where torch is not wanted
    *("manifest", "journal", "checkpoint", "layout", "attempt", "run_lock", "rundir", "schema"),
    *("atomic", "rank_report", "environment", "model", "model_record", "import_object"),
    *("run_records", "plain_settings", "saved_files", "journal_export"),
    *("run_state", "viewing.run_html", "viewing.following", "exploration"),
    *("background_journal", "sdk", "sdk.api", "sdk.managed", "sdk.samplers", "sdk.restore"),
]
SOURCES = sorted(path for folder in MAY_IMPORT for path in (REPOSITORY / folder).rglob("*.py"))


@dataclass(frozen=True)
class Import:
    name: str  # absolute: curitorch.external.journal
    place: str  # "module", "function" or "typing" (under TYPE_CHECKING)

    @property
    def top(self) -> str:
        return self.name.split(".")[0]


def imports(path: Path, text: str | None = None) -> list[Import]:
    package = ["curitorch", *path.relative_to(REPOSITORY).parent.parts]
    found: list[Import] = []

    def visit(node: ast.AST, place: str) -> None:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            place = "function"
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            for child in node.body:
                visit(child, "typing")
            for child in node.orelse:
                visit(child, place)
            return
        if isinstance(node, ast.Import):
            found.extend(Import(alias.name, place) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            found.extend(Import(f"{base}.{alias.name}", place) for alias in node.names)
        elif isinstance(node, ast.Call) and node.args:
            called = ast.unparse(node.func).split(".")[-1]
            target = node.args[0]
            if called in ("import_module", "__import__") and isinstance(target, ast.Constant):
                found.append(Import(str(target.value), place))
        for child in ast.iter_child_nodes(node):
            visit(child, place)

    visit(ast.parse(path.read_text(encoding="utf-8") if text is None else text), "module")
    return found


def name_of(path: Path) -> str:
    return str(path.relative_to(REPOSITORY))


def run_python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def blocking(*names: str) -> str:
    return (
        "import sys\n"
        "class Blocked:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name.split('.')[0] in {names!r}:\n"
        "            raise ModuleNotFoundError(f'{name} is blocked', name=name)\n"
        "sys.meta_path.insert(0, Blocked())\n"
    )


def modules(folder: str) -> list[str]:
    return [
        ".".join(["curitorch", *path.relative_to(REPOSITORY).with_suffix("").parts])
        for path in SOURCES
        if path.is_relative_to(REPOSITORY / folder) and name_of(path) not in NEED_CURIFACTORY
    ]


def test_imports_are_read_off_every_form_and_place():
    text = """
import a.b
from . import journal
from ..params import words as w
from ..params.words import metavar
if TYPE_CHECKING:
    import torch
def f():
    import lightning.pytorch
    importlib.import_module("boto3")
class C:
    import in_class
"""
    assert imports(REPOSITORY / "external" / "new.py", text) == [
        Import("a.b", "module"),
        Import("curitorch.external.journal", "module"),
        Import("curitorch.params.words", "module"),
        Import("curitorch.params.words.metavar", "module"),
        Import("torch", "typing"),
        Import("lightning.pytorch", "function"),
        Import("boto3", "function"),
        Import("in_class", "module"),
    ]
    nested = imports(REPOSITORY / "external" / "stores" / "s3.py", "from ...params import x")
    assert nested == [Import("curitorch.params.x", "module")]


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_a_file_imports_only_what_its_folder_may(path):
    folder = path.relative_to(REPOSITORY).parts[0]
    for each in imports(path):
        if each.top == "curitorch":
            inside = each.name.split(".")[1]
            assert inside in {folder, *MAY_IMPORT[folder]}, each
        if each.top == "curifactory":
            assert name_of(path) in CURIFACTORY_FILES, each
        if each.top in HEAVY:
            assert folder not in ("params", "stages"), each
            assert folder != "cachers" or each.place != "module", each


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_inside_the_package_imports_are_relative(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            assert not any(alias.name.split(".")[0] == "curitorch" for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            assert node.module.split(".")[0] != "curitorch"


def test_params_and_external_import_with_curifactory_blocked():
    names = [*modules("params"), *modules("external")]
    assert "curitorch.external.trainer" in names
    run_python(blocking("curifactory") + "".join(f"import {name}\n" for name in names))


def test_what_is_said_about_a_run_is_read_without_torch_and_curifactory():
    names = [*modules("params"), *(f"curitorch.external.{name}" for name in READ_WITHOUT_TORCH)]
    run_python(blocking("curifactory", *HEAVY) + "".join(f"import {name}\n" for name in names))


def test_cachers_and_stages_import_without_torch_and_lightning():
    names = [*modules("cachers"), *modules("stages")]
    assert {"curitorch.cachers.model", "curitorch.stages.run"} <= set(names)
    run_python(blocking(*HEAVY) + "".join(f"import {name}\n" for name in names))


def test_nothing_of_the_package_brings_torch_by_itself():
    code = "import sys, curitorch.stages, curitorch.cachers, curitorch.params\nprint(*sys.modules)"
    assert HEAVY.isdisjoint(run_python(code).split())


def test_every_folder_with_code_is_a_package_that_is_installed():
    folders = {path.parent.relative_to(REPOSITORY) for path in SOURCES}
    expected = {"curitorch", *(".".join(["curitorch", *folder.parts]) for folder in folders)}
    assert all((REPOSITORY / folder / "__init__.py").is_file() for folder in folders)
    settings = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    assert set(settings["tool"]["setuptools"]["packages"]) == expected
