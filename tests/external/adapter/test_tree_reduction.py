"""Gradients in a fixed tree: in one process, and in four real ones over gloo."""

import os
import subprocess
import sys
import textwrap

import pytest
import torch

from curitorch.external.adapter.tree_reduction import GradientTree
from curitorch.external.refused import Refused


def model():
    torch.manual_seed(1)
    return torch.nn.ParameterList([torch.randn(3, 5), torch.randn(7), torch.randn(2)])


def leaf(number):
    """Return gradients in which the order of additions shows; some are missing."""
    generator = torch.Generator().manual_seed(number)
    grads = [
        torch.randn(shape, generator=generator) * 10.0**number for shape in ((3, 5), (7,), (2,))
    ]
    grads[1] = grads[1] if number in (2, 5) else None
    grads[2] = None
    return grads


def summed(numbers, **place):
    parameters = model()
    tree = GradientTree(parameters, **place)
    for number in numbers:
        for parameter, grad in zip(parameters, leaf(number), strict=True):
            parameter.grad = grad
        tree.take()
    tree.finish()
    return [parameter.grad for parameter in parameters]


def test_one_process_adds_in_pairs_of_pairs():
    first = [leaf(number)[0] for number in range(8)]
    pairs = [first[n] + first[n + 1] for n in range(0, 8, 2)]
    expected = (pairs[0] + pairs[1]) + (pairs[2] + pairs[3])
    total = summed(range(8))
    assert torch.equal(total[0], expected)
    assert not torch.equal(total[0], sum(first))  # or this test could not fail
    assert torch.equal(total[1], leaf(2)[1] + leaf(5)[1])
    assert total[2] is None


def test_grains_that_make_no_tree_are_an_error():
    with pytest.raises(ValueError, match="3 grains were taken"):
        summed(range(3))


def test_sparse_gradients_are_refused():
    table = torch.nn.Embedding(5, 2, sparse=True)
    tree = GradientTree(table.parameters())
    table(torch.tensor([1, 2])).sum().backward()
    with pytest.raises(Refused, match="sparse=False"):
        tree.take()


def test_a_gradient_lies_in_memory_as_its_parameter_does():
    image = torch.nn.Conv2d(2, 3, 3).to(memory_format=torch.channels_last)
    tree = GradientTree(image.parameters())
    image.weight.grad = torch.randn(3, 2, 3, 3)
    tree.take()
    tree.finish()
    assert image.weight.grad.stride() == image.weight.stride()


FOUR = """
    import importlib.util, sys, torch
    import torch.distributed as dist
    spec = importlib.util.spec_from_file_location("here", sys.argv[1])
    here = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(here)
    rank = int(sys.argv[2])
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"file://{sys.argv[3]}", rank=rank, world_size=4)
    alone = here.summed(range(8))
    for ranks in (2, 4):
        if rank < ranks:
            own = range(8 // ranks * rank, 8 // ranks * (rank + 1))
            shared = here.summed(own, rank=rank, world_size=ranks)
            for one, other in zip(shared, alone, strict=True):
                assert (one is None) == (other is None)
                if one is not None:
                    assert one.numpy().tobytes() == other.numpy().tobytes()
    dist.barrier()
    dist.destroy_process_group()
"""


def test_one_two_and_four_processes_get_the_same_bits(tmp_path):
    program = tmp_path / "four.py"
    program.write_text(textwrap.dedent(FOUR))
    processes = [
        subprocess.Popen(
            [sys.executable, str(program), __file__, str(rank), str(tmp_path / "rendezvous")],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(4)
    ]
    outputs = [process.communicate(timeout=280)[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * 4, outputs
