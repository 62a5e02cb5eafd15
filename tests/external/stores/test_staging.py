import contextlib
import os

import pytest
import torch

from curitorch.external.stores.saving import pinned
from curitorch.external.stores.saving.staging import StagingBuffer

PAGE = 4096


@pytest.fixture
def buffer():
    buffer = StagingBuffer()
    yield buffer
    with contextlib.suppress(OSError):
        buffer.close()


class Cudart:
    """Stands for CUDA's runtime, which is not here: notes what is locked, or refuses."""

    def __init__(self, code=0):
        self.code = code
        self.locked = {}
        self.sizes = []

    def cudaHostRegister(self, address, size, flags):  # noqa: N802
        if not self.code:
            self.locked[address] = size
            self.sizes.append(size)
        return self.code

    def cudaHostUnregister(self, address):  # noqa: N802
        del self.locked[address]


@pytest.fixture
def cudart(monkeypatch):
    cudart = Cudart()
    monkeypatch.setattr(pinned, "_cudart", lambda: cudart)
    monkeypatch.setattr(pinned, "_forget_error", lambda: None)
    return cudart


def test_the_file_in_memory_is_exactly_as_long_as_what_is_staged(buffer):
    for size in (100, 5_000_000, 3, 2_000_000):
        memory = buffer.reserve(size)
        memory[:size] = bytes([size % 251]) * size
        assert os.pread(buffer.descriptor, size + 10, 0) == bytes([size % 251]) * size
        assert buffer.size >= size


def test_memory_is_locked_as_far_as_there_is_a_file_and_unlocked_before_that_changes(
    buffer, cudart, monkeypatch
):
    lengths = []
    truncate = os.ftruncate
    monkeypatch.setattr(
        os, "ftruncate", lambda fd, size: (lengths.append(dict(cudart.locked)), truncate(fd, size))
    )
    for size in (3 * PAGE - 5, 3 * PAGE, 3 * PAGE + 1, PAGE, 9_000_000):
        buffer.reserve(size, pinned=True)
        whole = -(-size // PAGE) * PAGE
        assert list(cudart.locked.values()) == [whole]
        assert all(locked == whole for locked in lengths.pop().values())
    assert cudart.sizes == [3 * PAGE, 4 * PAGE, PAGE, 9_003_008]  # the first two are the same pages
    buffer.close()
    assert cudart.locked == {}


def test_memory_that_cuda_does_not_lock_is_used_as_it_is_and_said_once(buffer, cudart):
    cudart.code = 2
    with pytest.warns(UserWarning, match="does not lock 4096 bytes of memory: error 2"):
        buffer.reserve(10, pinned=True)[:2] = b"ok"
    buffer.reserve(PAGE + 1, pinned=True)
    assert os.pread(buffer.descriptor, 2, 0) == b"ok"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_cuda_locks_the_memory_and_what_it_copies_is_in_the_file(buffer):
    for size in (5_000_000, 6_000_000, 5_500_000):
        target = torch.frombuffer(buffer.reserve(size, pinned=True), dtype=torch.uint8)
        assert target.is_pinned()
        there = torch.full((size,), size % 251, dtype=torch.uint8, device="cuda")
        target[:size].copy_(there, non_blocking=True)
        torch.cuda.synchronize()
        del target
        assert os.pread(buffer.descriptor, size, 0) == bytes([size % 251]) * size
