"""A service that the tests of one file share."""

import pytest

from curitorch.external.stores.testing.running_service import RunningService


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("service")
    with RunningService(folder, "--body-seconds", "0.5", "--idle-seconds", "0.5") as service:
        yield service
