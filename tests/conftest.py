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
from itertools import pairwise
from pathlib import Path

import pytest
from filelock import FileLock
from hypothesis import HealthCheck, settings

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
settings.register_profile(  # an example may take long where much else runs
    "patient",
    settings(),
    deadline=None,
    derandomize=True,  # who runs them next runs the same examples
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("patient")
os.environ.pop("PYTHONUNBUFFERED", None)  # it would mix the lines of ranks with one output

WITNESS = """
import atexit, json, os, sys
def write():
    path = os.path.join(os.environ["WITNESSES"], f"{os.getpid()}.json")
    with open(path + ".part", "w") as file:
        json.dump({"argv": sys.orig_argv, "modules": sorted(sys.modules)}, file)
    os.replace(path + ".part", path)
if "WITNESSES" in os.environ:
    atexit.register(write)
"""
"""A sitecustomize: every Python process says at its end what it was and what it imported."""


@pytest.hookimpl(trylast=True)  # once the others are deselected
def pytest_collection_modifyitems(items):
    """Let each worker begin with long tests: one that is begun last keeps all others waiting.

    They are those that ask for more than the usual 300 seconds. `--dist worksteal` gives each
    worker one piece of the list, and the ends of long pieces to those who are through with theirs.
    """
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    if workers > 1:
        marks = [item.get_closest_marker("timeout") for item in items]
        is_long = [mark is not None and mark.args > (300,) for mark in marks]
        long = [item for item, its in zip(items, is_long, strict=True) if its]
        rest = [item for item, its in zip(items, is_long, strict=True) if not its]
        starts, ordered = [len(items) * worker // workers for worker in range(workers + 1)], []
        for worker, (start, end) in enumerate(pairwise(starts)):
            first = long[worker::workers]
            others = max(0, end - start - len(first))
            ordered += first + rest[:others]
            del rest[:others]
        items[:] = ordered + rest


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
def made_once(tmp_path_factory):
    """Return a function that fills a folder once for all workers, which change nothing in it.

    It is given a name and what fills the folder; it returns the folder, and what that one returned.
    """
    base = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent  # https://pytest-xdist.readthedocs.io/en/stable/how-to.html

    def made(name, make):
        folder, returned = base / name, base / f"{name}.json"
        with FileLock(base / f"{name}.lock"):
            if not returned.exists():
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir()
                returned.write_text(json.dumps(make(folder)))
        return folder, json.loads(returned.read_text())

    return made


@pytest.fixture(scope="session")
def digits_project(made_once) -> tuple[UserProject, Ran]:
    """A copy of examples/digits after its first run with `-p quick`; change it in a copy."""

    def make(folder):
        path = folder / "a copy of digits"
        shutil.copytree(REPOSITORY / "examples" / "digits", path, ignore=LEFT_BEHIND)
        return asdict(UserProject(path).run("digits", "-p", "quick", witnesses=folder / "first"))

    folder, ran = made_once("digits", make)
    return UserProject(folder / "a copy of digits"), Ran(**ran)
