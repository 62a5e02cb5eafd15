import pytest
import torch

from curitorch.external.stores.saving import host_copy


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_every_byte_is_copied_to_its_place(threads, monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    sizes = [0, 1, 63, host_copy._PIECE, 3 * host_copy._PIECE + 5, 10 * host_copy._PIECE - 1]
    sources = [torch.randint(0, 255, (size,), dtype=torch.uint8) for size in sizes]
    target = torch.zeros(sum(sizes) + 64, dtype=torch.uint8)
    moves, at = [], target.data_ptr() + 32
    for source in sources:
        moves.append((at, source.data_ptr(), source.numel()))
        at += source.numel()
    host_copy.copy(moves)
    assert target[32:-32].equal(torch.cat(sources))
    assert target[:32].sum() + target[-32:].sum() == 0
    host_copy.copy([])
