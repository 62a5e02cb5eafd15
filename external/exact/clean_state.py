"""Whether an error left the training state as it was between two steps, and putting it back.

After an error in a forward or backward pass the parameters and the optimizer are still those of
the last whole step; buffers (running means) may have moved on, and are put back. After an error
behind the optimizer's step nothing of the kind can be said, and nothing is saved.
"""

import torch
from lightning.pytorch import LightningModule

LARGE = 1 << 20
"""Bytes from which a buffer is not copied at every step: such are constants, as a mask is."""


class CleanState:
    """Remembers each boundary between two optimizer steps, for a few microseconds.

    Buffers are copied: what BatchNorm does to them does not show in a tensor's version.
    """

    def __init__(self) -> None:
        self.position = (0, 0)
        self._stepping = True
        self._parameters: list[torch.Tensor] = []
        self._versions = 0
        self._buffers: list[torch.Tensor] = []
        self._copies: list[torch.Tensor] = []
        self._large: list[torch.Tensor] = []
        self._sums: list[float] = []

    def attach(self, module: LightningModule) -> None:
        """Begin with `module`, of which no boundary was seen yet."""
        buffers = [buffer.detach() for buffer in module.buffers()]
        self._parameters = list(module.parameters())
        self._buffers = [buffer for buffer in buffers if buffer.nbytes < LARGE]
        self._copies = [buffer.clone() for buffer in self._buffers]
        self._large = [buffer for buffer in buffers if buffer.nbytes >= LARGE]
        self._sums = [_sum(buffer) for buffer in self._large]
        self._stepping = True

    def stepping(self) -> None:
        """Take note that an optimizer begins to change parameters and its own state."""
        self._stepping = True

    def remember(self, position: tuple[int, int]) -> None:
        """Take note that all is between two steps, at (whole epochs, batches of the next)."""
        self.position = position
        self._stepping = False
        self._versions = sum(parameter._version for parameter in self._parameters)
        if self._buffers:
            torch._foreach_copy_(self._copies, self._buffers)

    def restore(self) -> bool:
        """Put buffers back; returns whether the state is that of the last boundary again."""
        if self._stepping or self._versions != sum(p._version for p in self._parameters):
            return False
        if self._sums != [_sum(buffer) for buffer in self._large]:
            return False
        if self._buffers:
            torch._foreach_copy_(self._buffers, self._copies)
        return True


def _sum(buffer: torch.Tensor) -> float:
    return float(buffer.double().nan_to_num().sum())
