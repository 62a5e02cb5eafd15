"""Patience with a service that does not answer: how long, how often, with which pauses."""

import random
import time
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How long a dead or busy service is put up with.

    Attributes:
        timeout: Seconds that one operation on a socket may take.
        tries: How often a request is sent before `StoreUnreachable`; at least 1.
        longest: The most seconds between two tries; they double from a tenth, and vary.
    """

    timeout: float = 30.0
    tries: int = 6
    longest: float = 5.0

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        if self.timeout <= 0 or self.tries < 1 or self.longest < 0:
            raise ValueError(
                f"{self}: expected timeout above 0, tries of at least 1, longest >= 0."
            )

    def pause(self, failures: int) -> None:
        """Wait before the next try; all of many clients do not come back at the same moment."""
        time.sleep(random.uniform(0.5, 1.0) * min(self.longest, 0.1 * 2 ** (failures - 1)))
