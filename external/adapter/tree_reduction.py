"""Gradients added up in one fixed tree, however many processes take part.

Floating-point sums depend on their order. Here the gradients of a global batch's grains are the
leaves of a balanced tree, ((0+1)+(2+3))+((4+5)+(6+7)): each process adds up its run of leaves as a
binary counter carries, then the processes exchange and add, first with their neighbour, then with
the one two further, then four (recursive doubling). Both are parts of the same tree, so 1, 2, 4 …
processes get the same bits.

    tree = GradientTree(module.parameters())
    for grain in grains:  # 2**n of them, in order
        loss(grain).backward()
        tree.take()
    tree.finish()  # now .grad is the sum over all processes
"""

from collections.abc import Iterable

import torch
import torch.distributed as dist
from torch import Tensor

from ..refused import Refused

Leaf = list[Tensor | None]
"""The gradient of each parameter; None where the loss does not depend on it."""


class GradientTree:
    """Takes the gradients of one grain after the other, and ends as their sum.

    It holds at most log2(grains of this process) + 1 gradients at a time.

    Args:
        parameters: Those that are trained, in the same order in every process.
        rank: This process.
        world_size: All processes: a power of two; 1 needs no process group.
    """

    def __init__(
        self, parameters: Iterable[torch.nn.Parameter], *, rank: int = 0, world_size: int = 1
    ) -> None:
        self._all = [*parameters]
        self._rank = rank
        self._world_size = world_size
        self._counter: list[tuple[int, Leaf]] = []
        """Complete subtrees that wait for their right neighbour: (height, sum), highest first."""
        self.begin()

    def begin(self) -> None:
        """Begin a global batch with no gradients, for the parameters that are trained now."""
        self._counter.clear()
        self._parameters = [each for each in self._all if each.requires_grad]
        for parameter in self._all:
            parameter.grad = None

    def take(self) -> None:
        """Take the gradients of a grain off the parameters, and add what is complete.

        Raises:
            Refused: A gradient is sparse.
        """
        leaf: Leaf = []
        for parameter in self._parameters:
            grad, parameter.grad = parameter.grad, None
            if grad is not None and grad.layout is not torch.strided:
                self._counter.clear()
                raise Refused(
                    f"A gradient of shape {tuple(grad.shape)} is sparse, whose sum has no fixed "
                    "order. Use sparse=False in its embedding, or exact='rank'."
                )
            leaf.append(grad)
        height = 0
        while self._counter and self._counter[-1][0] == height:
            _, left = self._counter.pop()
            leaf = _added(left, leaf)
            height += 1
        self._counter.append((height, leaf))

    def finish(self) -> None:
        """Make the sum over all grains of all processes the gradients; every process calls it.

        Raises:
            ValueError: The number of grains that this process took is not a power of two.
        """
        taken = sum(2**height for height, _ in self._counter)
        if len(self._counter) != 1:
            raise ValueError(f"{taken} grains were taken; a tree has 1, 2, 4, 8 … of them.")
        ((_, total),) = self._counter
        self._counter.clear()
        if self._world_size > 1:
            total = _over_processes(total, self._parameters, self._rank, self._world_size)
        for parameter, grad in zip(self._parameters, total, strict=True):
            parameter.grad = None if grad is None else _laid_out(grad, parameter)


def all_reduce(values: Tensor, *, rank: int, world_size: int) -> None:
    """Add up `values` of all processes in place, pairwise: ((0+1)+(2+3))+….

    Each of log2(world_size) rounds sends and receives the whole of it.
    """
    theirs = torch.empty_like(values)
    distance = 1
    while distance < world_size:
        other = rank ^ distance
        requests = dist.batch_isend_irecv(
            [dist.P2POp(dist.isend, values, other), dist.P2POp(dist.irecv, theirs, other)]
        )
        for request in requests:
            request.wait()
        values += theirs  # a + b is b + a, bit for bit
        distance *= 2


def _added(left: Leaf, right: Leaf) -> Leaf:
    """Return left + right in the memory of one of them; a missing gradient counts as zeros."""
    total: Leaf = list(left)
    mine: list[Tensor] = []
    others: list[Tensor] = []
    for index, (one, other) in enumerate(zip(left, right, strict=True)):
        if one is None or other is None:
            found = one if other is None else other
            # Zeros are added as other processes send them: -0.0 + 0.0 is 0.0.
            total[index] = None if found is None else found.add_(0.0)
        else:
            mine.append(one)
            others.append(other)
    if mine:
        torch._foreach_add_(mine, others)
    return total


def _over_processes(
    total: Leaf, parameters: list[torch.nn.Parameter], rank: int, world_size: int
) -> Leaf:
    """Return the sum over all processes; a parameter has none if it has none in any of them."""
    kinds: dict[tuple[torch.dtype, torch.device], list[int]] = {}
    for index, parameter in enumerate(parameters):
        kinds.setdefault((parameter.dtype, parameter.device), []).append(index)
    summed: Leaf = [None] * len(total)
    for (dtype, device), members in kinds.items():
        flags = [float(total[index] is not None) for index in members]
        pieces = [
            _flat(total[index], parameters[index].numel(), dtype, device) for index in members
        ]
        # One message: the gradients, and which of them there are.
        values = torch.cat([*pieces, torch.tensor(flags, dtype=dtype, device=device)])
        all_reduce(values, rank=rank, world_size=world_size)
        sizes = [parameters[index].numel() for index in members]
        *parts, counts = torch.split(values, [*sizes, len(members)])
        for index, part, count in zip(members, parts, counts.tolist(), strict=True):
            if count > 0:
                summed[index] = part.view(parameters[index].shape)
    return summed


def _flat(grad: Tensor | None, size: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    if grad is None:
        return torch.zeros(size, dtype=dtype, device=device)
    return grad.reshape(-1)


def _laid_out(grad: Tensor, parameter: torch.nn.Parameter) -> Tensor:
    """Return `grad` in the memory order of its parameter, as optimizers then go through it."""
    if grad.stride() == parameter.stride():
        return grad
    return torch.empty_like(parameter, requires_grad=False).copy_(grad)
