"""What a new process begins with: the newest checkpoint, and the way back to where it was saved."""

from collections.abc import Callable
from typing import Any

from .checkpoints import Checkpoints
from .ranks import Ranks
from .settings import AGAIN, CONFIG, BadVariable
from .tracker import Tracker


class Resumption:
    """One checkpoint that is there, of the script as it is now.

    Attributes:
        steps: That were done when it was saved.

    Raises:
        BadVariable: It cannot be read, or a file of the script has changed.
    """

    def __init__(self, checkpoints: Checkpoints, tracker: Tracker, ranks: Ranks | None) -> None:
        self._tracker = tracker
        self._rank = 0 if ranks is None else ranks.rank
        stored, saved = checkpoints.read()
        self._saved: dict[str, Any] = saved
        self.steps = int(saved["steps"])
        before = int(stored.details.get("world_size", 1))
        self._ranks_before = None if before == checkpoints.world_size else before
        for source in tracker.sources.values():
            self.check_source(source.key, source.checksum)

    def lead_back(self, then: Callable[[], None]) -> None:
        """Let the script go back to where it was saved; `then` is called there."""
        from .decoder import Decoder
        from .epoch_order import RANKS
        from .way_back import WayBack

        decoder = Decoder(self._saved["shared"], self._tracker.may_change)
        way_back = WayBack(self._tracker, self._saved, decoder, then)
        if self._ranks_before is not None:
            way_back.ranks_before = RANKS.before = self._ranks_before
            way_back.rank = self._rank
        self._tracker.way_back = way_back
        self._tracker.live = False
        self._tracker.due = True

    def check_source(self, key: str, checksum: str) -> None:
        """Refuse a file of the script that has changed since it was saved.

        Raises:
            BadVariable: It has.
        """
        saved = self._saved["sources"].get(key)
        if saved is not None and saved != checksum:
            raise BadVariable(
                f"'{key}' has changed since it was saved at step {self.steps}, so that "
                f"it cannot go on there. Undo the change, name another root in {CONFIG}, or set "
                f"{AGAIN}=1 to begin anew."
            )
