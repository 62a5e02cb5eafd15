"""Where nothing may be left out, a test that is skipped for what could be installed fails."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parent
SKIPPED = """
import pytest

@pytest.fixture
def server():
    pytest.skip("no server: it could not be installed")

def test_with_a_server(server): pass
def test_with_a_package(): pytest.importorskip("there_is_no_such_package")
def test_with_a_gpu(): pytest.skip("needs a GPU")
@pytest.mark.skipif(True, reason="only root may mount a file system")
def test_with_a_disk(): pass
@pytest.mark.xfail
def test_that_fails(): assert False
"""
WHOLE_FILE = 'import pytest\npytest.importorskip("there_is_no_such_package")\n'


@pytest.mark.parametrize(
    ("variables", "outcome"),
    [
        ({}, "5 skipped, 1 xfailed"),
        ({"CI": "", "CURITORCH_REQUIRE_ALL": "0"}, "5 skipped, 1 xfailed"),
        ({"CI": "true"}, "1 failed, 2 skipped, 1 xfailed, 2 errors"),
        ({"CURITORCH_REQUIRE_ALL": "1"}, "1 failed, 2 skipped, 1 xfailed, 2 errors"),
    ],
)
def test_a_skip_is_a_failure_where_nothing_may_be_left_out(tmp_path, variables, outcome):
    shutil.copy(TESTS / "conftest.py", tmp_path)
    (tmp_path / "test_parts.py").write_text(SKIPPED)
    (tmp_path / "test_whole.py").write_text(WHOLE_FILE)
    unset = {k: v for k, v in os.environ.items() if k not in ("CI", "CURITORCH_REQUIRE_ALL")}
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-p",
            "no:cacheprovider",
            "--color=no",
            "--continue-on-collection-errors",
        ],
        cwd=tmp_path,
        env={**unset, **variables},
        capture_output=True,
        text=True,
        check=False,
    )
    assert re.search(rf"= {outcome} in ", done.stdout), done.stdout
    if "failed," in outcome:
        assert "no server: it could not be installed. With CI or CURITORCH_REQUIRE_ALL" in (
            done.stdout
        )
