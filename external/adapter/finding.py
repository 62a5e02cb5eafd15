"""One thing in a project that the lean loop refuses, or leaves out."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Finding:
    """See the module.

    Attributes:
        verdict: Whether training begins in spite of it.
        name: What it is, such as `Net.training_step_end`.
        place: `file:line` where it is written.
        text: What is wrong, and what to do.
    """

    verdict: Literal["warned", "refused"]
    name: str
    place: str
    text: str

    def __str__(self) -> str:
        return f"{self.place}: {self.name}: {self.text}."
