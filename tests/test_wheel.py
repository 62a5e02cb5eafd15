"""The wheel: what is in it, and that it alone trains in a user's project."""

import shutil
import site
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

REPOSITORY = Path(__file__).resolve().parents[1]
FOLDERS = ("params", "external", "cachers", "stages")
AT_START = ("curitorch_autopatch.pth", "curitorch_autopatch.start")  # in site-packages itself
FILES = ("__init__.py", "py.typed", "pyproject.toml", "setup.py", "README.md", "LICENSE", *AT_START)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """Built from a copy: setuptools packs what an older build left in its folder."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for folder in FOLDERS:
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(REPOSITORY / folder, source / folder, ignore=ignored)
    for name in FILES:
        shutil.copy(REPOSITORY / name, source / name)
    pip("wheel", "--no-deps", "--no-build-isolation", "-w", str(target), str(source))
    [built] = target.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    """Return the python of an environment with the wheel; what it needs comes from ours.

    Ours comes in as a plain folder, whose own .pth files (an editable curitorch) are not read.
    """
    environment = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    [packages] = environment.glob("lib/python*/site-packages")
    (packages / "ours.pth").write_text("".join(f"{path}\n" for path in site.getsitepackages()))
    pip("install", "--no-deps", "--target", str(packages), str(wheel))
    return environment / "bin" / "python"


def pip(*arguments: str) -> None:
    command = [sys.executable, "-m", "pip", "-q", "--disable-pip-version-check", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_module_and_the_types_marker_are_in_the_wheel(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    modules = {
        f"curitorch/{path.relative_to(REPOSITORY)}"
        for folder in FOLDERS
        for path in (REPOSITORY / folder).rglob("*.py*")
        if path.suffix in (".py", ".pyi")
    }
    assert modules | {"curitorch/__init__.py", "curitorch/py.typed"} <= names
    packed = {name for name in names if ".dist-info/" not in name}
    beside = {name.rpartition("/")[2] for name in packed if "/purelib/" in name or "/" not in name}
    assert beside == set(AT_START)
    inside = {name for name in packed if name.startswith("curitorch/")}
    assert inside == modules | {"curitorch/__init__.py", "curitorch/py.typed"}
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)


def test_the_wheel_alone_trains_in_a_users_project(installed, a_users_project, tmp_path):
    ran = a_users_project.run(
        "own", "-p", "mine", witnesses=tmp_path / "first", python=str(installed)
    )
    assert ran.returncode == 0, ran.output
    assert "STEP 6" in ran.output.splitlines()
    places = [line for line in ran.output.splitlines() if line.startswith("CURITORCH ")]
    assert len(places) == 2  # of the experiment and of the trainer
    for place in places:
        assert Path(place.removeprefix("CURITORCH ")).is_relative_to(installed.parents[1])


def test_the_console_script_has_the_same_exit_status(installed, a_users_project):
    script = installed.parents[1] / "lib"
    [command] = script.glob("python*/site-packages/bin/curitorch")
    done = subprocess.run(
        [installed, command, "nothing", "-p", "mine"],
        cwd=a_users_project.path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert "nothing" in done.stdout + done.stderr
