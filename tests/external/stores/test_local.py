import pytest

from curitorch.external.stores.testing import StoreContract


class TestLocalStore(StoreContract):
    @pytest.fixture
    def recipe(self, tmp_path):
        self.root = tmp_path / 'a "root", with $HOME'
        return "local", 'root="' + str(self.root).replace('"', '\\"') + '"'

    def damage(self, checkpoint, name, content):
        path = self.root / f"step-{checkpoint.step:08d}" / name
        path.unlink()
        if content is not None:
            path.write_bytes(content)

    def damage_sidecar(self, step, content):
        (self.root / f"step-{step:08d}.json").write_bytes(content)

    def leftovers(self):
        names = {path.name for path in self.root.iterdir()} - {"changes", "lease", "lease.json"}
        whole = {name for name in names if not name.startswith(".") and f"{name}.json" in names}
        files = {path.name for name in whole for path in (self.root / name).iterdir()}
        return sorted(names - whole - {f"{name}.json" for name in whole} - files) + sorted(
            name for name in files if name.startswith(".")
        )
