"""The contract as users have it: in a project of their own, for a store of their own."""

import os
import subprocess
import sys

import pytest

OWN_STORE = """
from curitorch.external.stores import LocalStore

class MyStore(LocalStore):
    def __init__(self, folder: str):
        super().__init__(folder)

class Forgetful(MyStore):
    def verify(self, checkpoint):
        pass

class Torn(MyStore):
    def put(self, step, files, **options):
        torn = {}
        for name, path in files.items():
            torn[name] = path.with_name(path.name + " torn")
            torn[name].write_bytes(path.read_bytes()[:-1])
        return super().put(step, torn, **options)
"""
OWN_TEST = """
import pytest
from curitorch.external.stores.testing import StoreContract

class TestMyStore(StoreContract):
    KILLS = 1

    @pytest.fixture
    def recipe(self, tmp_path):
        self.root = tmp_path / "kept"
        return "my_stores:{name}", f"folder={{self.root}}"

    def damage(self, checkpoint, name, content):
        path = self.root / f"step-{{checkpoint.step:08d}}" / name
        path.unlink() if content is None else path.write_bytes(content)
"""


def run_contract(folder, name):
    (folder / "my_stores.py").write_text(OWN_STORE)
    (folder / "test_mine.py").write_text(OWN_TEST.format(name=name))
    command = [sys.executable, "-m", "pytest", "-q", "-rfs", "-m", "not slow", "-W", "ignore"]
    return subprocess.run(
        [*command, "-p", "no:cacheprovider", "test_mine.py"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_users_own_store_keeps_the_contract(tmp_path):
    done = run_contract(tmp_path, "MyStore")
    assert done.returncode == 0, done.stdout
    assert "damage_sidecar() is not overridden" in done.stdout


@pytest.mark.parametrize(
    ("name", "failing"),
    [
        ("Forgetful", "test_nothing_is_pruned_before_a_newer_one_is_valid"),
        ("Torn", "test_kill_9_loses_at_most_what_was_under_way"),
    ],
)
def test_a_store_that_breaks_it_is_found_out(tmp_path, name, failing):
    done = run_contract(tmp_path, name)
    assert done.returncode == 1
    assert f"FAILED test_mine.py::TestMyStore::{failing}" in done.stdout
