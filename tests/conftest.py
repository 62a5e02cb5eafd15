"""Projects of users, in folders of their own, and running their experiments in real processes."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
LEFT_BEHIND = shutil.ignore_patterns("data", "logs", "reports", "__pycache__")

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
        done = subprocess.run(
            [python, "-m", "curitorch.stages.run", *arguments, "--plain"],
            cwd=self.path,
            env={
                **os.environ,
                "PYTHONPATH": str(witnesses),
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
    """A copy of examples/digits after its first run with `-p quick`."""
    folder = tmp_path_factory.mktemp("digits")
    path = folder / "a copy of digits"
    shutil.copytree(REPOSITORY / "examples" / "digits", path, ignore=LEFT_BEHIND)
    project = UserProject(path)
    return project, project.run("digits", "-p", "quick", witnesses=folder / "first")
