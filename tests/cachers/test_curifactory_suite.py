"""curifactory's own tests, with our cachers' base in the place of its JsonCacher and PickleCacher.

They come from curifactory's source distribution, which leaves out their fixtures and example
stages: those are written anew here.
"""

import importlib.metadata
import importlib.util
import os
import subprocess
import sys
import tarfile
import time
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

FILES = ["caching", "staging", "record", "dag", "manager", "procedure"]

CONFTEST = """
import shutil

import pytest
from curifactory import ExperimentParameters
from curifactory.manager import ArtifactManager

ROOT = "test/examples"
CONFIGURATION = {
    "experiments_module_name": "test.examples.experiments",
    "params_module_name": "test.examples.params",
    "manager_cache_path": f"{ROOT}/data",
    "cache_path": f"{ROOT}/data/cache",
    "runs_path": f"{ROOT}/data/runs",
    "logs_path": f"{ROOT}/logs",
    "notebooks_path": f"{ROOT}/notebooks",
    "reports_path": f"{ROOT}/reports",
    "report_css_path": f"{ROOT}/reports/style.css",
}


@pytest.fixture
def clear_filesystem():
    shutil.rmtree(f"{ROOT}/data", ignore_errors=True)


@pytest.fixture
def configured_test_manager(clear_filesystem, mocker):
    mocker.patch("curifactory.utils.get_configuration", return_value=CONFIGURATION)
    return ArtifactManager("test", live_log_debug=True)


@pytest.fixture
def alternate_test_manager2(mocker):
    mocker.patch("curifactory.utils.get_configuration", return_value=CONFIGURATION)
    return ArtifactManager("test2", live_log_debug=True)


@pytest.fixture
def sample_args():
    return ExperimentParameters(name="sample_args", hash="sample_hash")
"""

CACHE_STAGES = """
from pathlib import Path

import curifactory as cf
from curifactory.caching import FileReferenceCacher


def write(record, *paths):
    for path in paths:
        Path(path).write_text("content")
    Path(record.manager.cache_path, "stage_ran").touch()


@cf.stage(None, ["output_path"], [FileReferenceCacher])
def filerefcacher_stage(record):
    path = record.get_path("my_file")
    write(record, path)
    return path


@cf.stage(None, ["output_paths"], [FileReferenceCacher])
def filerefcacher_stage_multifile(record):
    paths = [f"{record.get_dir('my_files')}/thing{i}" for i in range(5)]
    write(record, *paths)
    return paths
"""

PLUGIN = """
import json
import pickle
from pathlib import Path

import curifactory.caching
import curifactory.staging

from curitorch.cachers import WholeCacher
from curitorch.external.atomic import whole_file

saved = []


class Whole(WholeCacher):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, extension=self.ending, **kwargs)

    def save(self, obj):
        with whole_file(self.path) as temporary:
            temporary.write_bytes(self.encode(obj))
        self.record_sizes()
        self.save_metadata()
        saved.append(self)
        return str(self.path)

    def load(self):
        return self.decode(self.path.read_bytes())


class JsonCacher(Whole):
    ending = ".json"
    encode = staticmethod(lambda obj: json.dumps(obj, indent=4, default=str).encode())
    decode = staticmethod(json.loads)


class PickleCacher(Whole):
    ending = ".pkl"
    encode = staticmethod(pickle.dumps)
    decode = staticmethod(pickle.loads)


for module in (curifactory.caching, curifactory.staging):
    for cacher in (JsonCacher, PickleCacher):
        if hasattr(module, cacher.__name__):
            setattr(module, cacher.__name__, cacher)


def pytest_sessionfinish():
    Path("saved").write_text(str(len(saved)))
"""


@pytest.fixture(scope="module")
def suite(tmp_path_factory):
    """A folder with curifactory's tests in `test/`, ready to run."""
    if importlib.util.find_spec("pytest_mock") is None:
        pytest.skip('curifactory\'s tests need pytest-mock: pip install -e ".[dev]"')
    folder = tmp_path_factory.mktemp("suite")
    wanted = f"curifactory=={importlib.metadata.version('curifactory')}"
    words = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-binary=:all:"]
    for patience in (0, 10, 30):  # a network may fail once
        time.sleep(patience)
        done = subprocess.run(
            [*words, "--retries=0", wanted],
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
        )
        archives = list(folder.glob("curifactory-*.tar.gz"))
        if archives:
            break
    if not archives:
        reason = (done.stderr.strip().splitlines() or ["no source distribution"])[-1]
        pytest.skip(f"The source distribution of {wanted} cannot be downloaded: {reason}")
    with tarfile.open(archives[0]) as archive:
        archive.extractall(folder, filter="data")
    next(folder.glob("curifactory-*/test")).rename(folder / "test")
    stages = folder / "test" / "examples" / "stages"
    stages.mkdir(parents=True)
    for package in (folder / "test", stages.parent, stages):
        (package / "__init__.py").touch()
    (folder / "test" / "conftest.py").write_text(CONFTEST)
    (stages / "cache_stages.py").write_text(CACHE_STAGES)
    (folder / "whole_cachers.py").write_text(PLUGIN)
    return folder


def passing(suite: Path, *options: str) -> set[str]:
    """Run the tests and return the names of those that pass."""
    files = [f"test/test_{name}.py" for name in FILES]
    report = suite / "report.xml"
    path = [str(Path(sys.executable).parent), os.environ["PATH"]]  # for ipynb-py-convert
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", f"--junitxml={report}", *options, *files],
        cwd=suite,
        env={**os.environ, "PATH": os.pathsep.join(path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode in (0, 1), done.stdout + done.stderr  # 1: some fail without us too
    return {
        f"{case.get('classname')}::{case.get('name')}"
        for case in ElementTree.parse(report).iter("testcase")
        if len(case) == 0 or {child.tag for child in case} <= {"system-out", "system-err"}
    }


@pytest.mark.slow
def test_curifactorys_own_tests_pass_with_our_base_as_they_do_without(suite):
    plain = passing(suite)
    ours = passing(suite, "-p", "whole_cachers")

    assert len(plain) > 200
    assert int((suite / "saved").read_text()) > 50
    assert sorted(plain - ours) == []
