"""The TCP store: it keeps the contract of all stores, over networks that break."""

import pytest

from curitorch.external.stores.sidecar import folder_name, sidecar_name, step_of
from curitorch.external.stores.store import StoredCheckpoint
from curitorch.external.stores.testing import StoreContract
from curitorch.external.stores.testing.running_service import RunningService


@pytest.fixture(scope="module")
def shared_service(tmp_path_factory):
    with RunningService(tmp_path_factory.mktemp("service"), "--lease-seconds", "0.6") as service:
        yield service


class TestTcpStore(StoreContract):
    KILLS = 3

    @pytest.fixture
    def recipe(self, shared_service, request):
        self.service, self.job = shared_service, f"job-{abs(hash(request.node.name))}"
        return shared_service.recipe(self.job)

    @property
    def folder(self):
        return self.service.root / self.job

    def damage(self, checkpoint: StoredCheckpoint, name: str, content: bytes | None) -> None:
        path = self.folder / folder_name(checkpoint.step) / name
        path.unlink() if content is None else path.write_bytes(content)

    def damage_sidecar(self, step: int, content: bytes) -> None:
        (self.folder / sidecar_name(step)).write_bytes(content)

    def leftovers(self) -> list[str]:
        if not self.folder.exists():
            return []
        names = {path.name for path in self.folder.iterdir()}
        uploads = [path.name for path in (self.folder / "uploads").glob("*")]
        kept = {"uploads", "changes", "service-lease.json"}
        sidecars = {name for name in names if name.endswith(".json") and step_of(name) is not None}
        whole = {name.removesuffix(".json") for name in sidecars}
        return sorted(names - kept - sidecars - whole) + uploads
