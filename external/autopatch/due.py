"""What is due: asked for by the clock, by a signal, by the count of steps, by another rank."""

from .clock import Clock
from .ranks import Ranks
from .tracker import Tracker
from .wish import Wish


class Due:
    """Collects what is asked for, until a place of the script is there.

    Attributes:
        ranks: This rank among others; None where there is only one.
        clock: What asks in time.
        stopping: Whether the process was asked to end.
    """

    def __init__(self, tracker: Tracker, clock: Clock) -> None:
        self.tracker = tracker
        self.clock = clock
        self.ranks: Ranks | None = None
        self.stopping = False
        self._asked = Wish.NOTHING
        self._taken = (False, Wish.NOTHING, Wish.NOTHING)

    def ask(self, wish: Wish) -> None:
        """Ask for a save, in any thread; of several ranks the first speaks for all."""
        if self.ranks is None:
            self._asked = max(self._asked, wish)
            self.tracker.due = True
        elif self.ranks.rank == 0:
            self.ranks.propose(wish)

    def ask_here(self, wish: Wish) -> None:
        """Ask for a save at the next iteration, where all ranks do so."""
        self._asked = wish
        self.tracker.due = True

    def stop(self) -> None:
        """Ask for a save and the end, in a signal handler, on any rank."""
        self.stopping = True
        if self.ranks is not None:
            self.ranks.propose(Wish.STOP)
        else:
            self.tracker.due = True

    def take(self) -> Wish:
        """Return what is due at this place of the script, on all ranks the same."""
        self.tracker.due = False  # first: whatever asks from here on is heard
        counted, self.tracker.counted = self.tracker.counted, False
        asked, self._asked = self._asked, Wish.NOTHING
        granted = Wish.NOTHING if self.ranks is None else self.ranks.granted()
        self._taken = (counted, asked, granted)
        own = Wish.STOP if self.stopping and self.ranks is None else asked
        return max(granted, own, Wish.SAVE if counted else Wish.NOTHING)

    def settle(self, wish: Wish, *, done: bool) -> None:
        """What `take` returned is done, or to be done elsewhere."""
        counted, asked, granted = self._taken
        if done and granted and self.ranks is not None:
            self.ranks.finish_round()
        if not done:
            self._asked = max(self._asked, asked)
            self.tracker.counted = self.tracker.counted or counted
        waiting = self.ranks is not None and self.ranks.is_in_round
        self.tracker.due = self.tracker.due or not done or waiting
        if done and wish >= Wish.SAVE:
            self.clock.saved()
