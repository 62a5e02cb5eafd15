"""What the tests of one file share: a service, and a process that trainers are forked from."""

import pytest

from curitorch.external.stores.testing.forks import Forks
from curitorch.external.stores.testing.running_service import RunningService


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    with RunningService(tmp_path_factory.mktemp("service")) as service:
        yield service


@pytest.fixture(scope="module")
def trainers():
    """Starts trainers that are killed, without two seconds of imports for each."""
    with Forks("import torch, curitorch.external.stores.saver") as forks:
        yield forks


@pytest.fixture
def one_thread():
    """Torch changes tensors from their first word on, and its threads wait for no processor."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
