"""Several ranks save at the same place of the script, and cost nothing until one of them asks.

Any rank proposes a save. A thread of each rank answers with the step at which it will wait, two
steps from now; all save where the first loop begins an iteration after the latest of these steps.
So no rank waits for one that waits for it: ranks that exchange gradients are within one step of
each other. What is exchanged goes through torchrun's own store, over a connection of our own.
"""

import os
import threading
from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .tracker import Tracker

_FOREVER = timedelta(days=365)
_START = timedelta(minutes=10)


class Ranks:
    """This rank among `world_size`; see `of_environment`."""

    def __init__(self, tracker: "Tracker", rank: int, world_size: int) -> None:
        self.tracker = tracker
        self.rank = rank
        self.world_size = world_size
        self._round = 0
        self._hold: int | None = None
        self._target: int | None = None
        self._known = threading.Event()
        self._next_round = threading.Event()
        self._stop = False
        self._stores: list[Any] = []

    @classmethod
    def of_environment(
        cls, tracker: "Tracker", environ: Mapping[str, str] = os.environ
    ) -> "Ranks | None":
        """Return this rank as torchrun announced it; None where there is only one."""
        if "TORCHELASTIC_RUN_ID" not in environ or int(environ.get("WORLD_SIZE", "1")) < 2:
            return None
        return cls(tracker, int(environ["RANK"]), int(environ["WORLD_SIZE"]))

    def connect(self) -> None:
        """Connect to the launcher's store, and listen for proposals from now on."""
        from torch._C._distributed_c10d import PrefixStore, TCPStore

        name = f"curitorch-autopatch/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}"
        for _ in range(3):  # for the listener, the proposer, and the script's own thread
            store = TCPStore(
                os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), is_master=False
            )
            self._stores.append(PrefixStore(name, store))
        threading.Thread(target=self._listen, daemon=True).start()

    def common(self, steps: list[int]) -> int | None:
        """Return the highest step that every rank has; all ranks call it, once."""
        store = self._stores[2]
        store.set(f"steps-{self.rank}", ",".join(map(str, steps)))
        found = set(steps)
        for other in range(self.world_size):
            store.wait([f"steps-{other}"], _START)
            words = store.get(f"steps-{other}").decode()
            found &= {int(word) for word in words.split(",") if word}
        return max(found, default=None)

    def propose(self, *, stop: bool) -> None:
        """Ask all ranks to save, and to end afterwards; does not wait (a signal handler calls)."""
        number = self._round
        threading.Thread(target=self._propose, args=(number, stop), daemon=True).start()

    def _propose(self, number: int, stop: bool) -> None:
        store = self._stores[1]
        if stop:
            store.set("stop", "1")
        store.set(f"proposal-{number}", "1")

    def _listen(self) -> None:
        store = self._stores[0]
        while True:
            number = self._round
            store.wait([f"proposal-{number}"], _FOREVER)
            self.tracker.due = True
            self._hold = self.tracker.steps + 2
            while self.tracker.steps >= self._hold:  # it went on while we looked
                self._hold = self.tracker.steps + 2
            store.set(f"answer-{number}-{self.rank}", str(self._hold))
            answers = []
            for other in range(self.world_size):
                key = f"answer-{number}-{other}"
                store.wait([key], _FOREVER)
                answers.append(int(store.get(key)))
            self._stop = self._stop or store.check(["stop"])
            self._target = max(answers)
            self._known.set()
            self._next_round.wait()
            self._next_round.clear()

    def is_here(self) -> bool:
        """Return whether this is the place to save; waits until it is agreed on."""
        if self._hold is None:
            return True  # every n-th step is the same for all
        if self.tracker.steps < self._hold:
            return False
        self._known.wait()
        return self.tracker.steps >= (self._target or 0)

    def finish_round(self) -> bool:
        """The save is made; returns whether the process is to end."""
        if self._hold is None:
            return False
        self._hold = self._target = None
        self._known.clear()
        self._round += 1
        self._next_round.set()
        return self._stop

    def wait_for_all(self, what: str, seconds: float) -> None:
        """Wait until every rank is as far, or for as long as they may take."""
        store = self._stores[2]
        store.set(f"{what}-{self._round}-{self.rank}", "1")
        keys = [f"{what}-{self._round}-{other}" for other in range(self.world_size)]
        try:
            store.wait(keys, timedelta(seconds=seconds))
        except RuntimeError:
            return
