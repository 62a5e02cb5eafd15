"""Projects of users, in folders of their own, and running their experiments in real processes.

A test whose outside part cannot be had (a server from PyPI, an archive to download) is skipped; but
where nothing may be left out, in CI or with CURITORCH_REQUIRE_ALL=1, that is a failure.
"""

import importlib
import json
import os
import shutil
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import pytest
from filelock import FileLock

OF_THE_MACHINE = (
    *("needs a GPU", "needs a machine without a GPU", "needs /dev/full", "the leash needs Linux"),
    *("needs root", "only root may mount", "cannot mount", "a file system cannot be mounted"),
    *("this file system", "torch cannot do that", "openssl is not here"),
)
"""How the reasons of skips begin that are all right anywhere: no installation changes them."""

REPOSITORY = Path(__file__).resolve().parents[1]
LEFT_BEHIND = shutil.ignore_patterns("data", "logs", "reports", "__pycache__")

QUICK_IMPORTS = str(REPOSITORY / "tests" / "quick_imports")
for place in (QUICK_IMPORTS, str(REPOSITORY / "tests" / "external" / "exact" / "matrix")):
    if place not in sys.path:  # of this process, and of those that it starts
        sys.path.append(place)
        before = os.environ.get("PYTHONPATH")
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [before, place]))
importlib.import_module("torchmetrics_alone")

WITNESS = """
import atexit, json, os, sys
def write():
    path = os.path.join(os.environ["WITNESSES"], f"{os.getpid()}.json")
    with open(path, "w") as file:
        json.dump({"argv": sys.orig_argv, "modules": sorted(sys.modules)}, file)
if "WITNESSES" in os.environ:
    atexit.register(write)
"""
"""A sitecustomize: every Python process says at its end what it was and what it imported."""


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport():
    """Let no test be skipped for what could be installed, where nothing may be left out."""
    return _strict((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report():
    """Nor a whole file."""
    return _strict((yield))


def _strict(report):
    wanted = [os.environ.get(name, "") for name in ("CI", "CURITORCH_REQUIRE_ALL")]
    must = any(word not in ("", "0", "false") for word in wanted)
    if must and report.outcome == "skipped" and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2].removeprefix("Skipped: ")
        if not reason.startswith(OF_THE_MACHINE):
            report.outcome = "failed"
            report.longrepr = (
                f"Skipped: {reason}. With CI or CURITORCH_REQUIRE_ALL set nothing may be left out: "
                "install it, or see OF_THE_MACHINE in tests/conftest.py."
            )
    return report


@dataclass(frozen=True)
class Ran:
    """What became of an experiment; `processes` are the Python processes that took part."""

    returncode: int
    output: str
    processes: list[dict]


@dataclass(frozen=True)
class UserProject:
    """A folder with a curifactory project."""

    path: Path

    def run(self, *arguments: str, witnesses: Path, python: str = sys.executable) -> Ran:
        witnesses.mkdir(parents=True)
        (witnesses / "sitecustomize.py").write_text(WITNESS)
        path = str(witnesses)
        if python == sys.executable:  # another one is as a user has it
            with (witnesses / "sitecustomize.py").open("a") as file:
                file.write("import torchmetrics_alone\n")
            path += os.pathsep + QUICK_IMPORTS
        done = subprocess.run(
            [python, "-m", "curitorch.stages.run", *arguments, "--plain"],
            cwd=self.path,
            env={
                **os.environ,
                "PYTHONPATH": path,
                "WITNESSES": str(witnesses),
                "OMP_NUM_THREADS": "1",
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        processes = [json.loads(path.read_text()) for path in witnesses.glob("*.json")]
        return Ran(done.returncode, done.stdout, processes)


@pytest.fixture
def a_users_project(tmp_path) -> UserProject:
    """A project whose own packages are called params, stages and external."""
    path = tmp_path / "a user's project"
    shutil.copytree(REPOSITORY / "tests" / "a_users_project", path, ignore=LEFT_BEHIND)
    return UserProject(path)


@pytest.fixture(scope="session")
def digits_project(tmp_path_factory) -> tuple[UserProject, Ran]:
    """A copy of examples/digits after its first run with `-p quick`; all workers share it.

    Who would change anything in it makes a copy.
    """
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent  # https://pytest-xdist.readthedocs.io/en/stable/how-to.html
    project, said = UserProject(folder / "digits" / "a copy of digits"), folder / "digits.json"
    with FileLock(folder / "digits.lock"):
        if not said.exists():
            shutil.rmtree(project.path, ignore_errors=True)
            shutil.copytree(REPOSITORY / "examples" / "digits", project.path, ignore=LEFT_BEHIND)
            witnesses = folder / "digits" / "first"
            ran = project.run("digits", "-p", "quick", witnesses=witnesses)
            said.write_text(json.dumps(asdict(ran)))
    return project, Ran(**json.loads(said.read_text()))
