"""Several ranks save at the same place of the script, and cost nothing until one of them asks.

Any rank proposes a save. A thread of each rank answers with the step at which it will wait, two
steps from now; all save where the first loop begins an iteration after the latest of these steps.
So no rank waits for one that waits for it: ranks that exchange gradients are within one step of
each other. What the save is for is the most urgent of what the answers say, so that all ranks know
the same. All is exchanged through torchrun's own store, over connections of our own.
"""

import atexit
import contextlib
import os
import threading
import time
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from .findings import LOG
from .wish import Wish

if TYPE_CHECKING:
    from .tracker import Tracker

_FOREVER = timedelta(days=365)
_START = timedelta(minutes=10)
_LOOK = 0.002
_FAILED = "failed"


class Ranks:
    """This rank among `world_size`; see `of_environment`.

    Attributes:
        on_lost: Called in a thread if the launcher's store is gone: nothing can be agreed on.
    """

    def __init__(self, tracker: "Tracker", rank: int, world_size: int) -> None:
        self.tracker = tracker
        self.rank = rank
        self.world_size = world_size
        self.on_lost: Callable[[], None] = lambda: None
        self._round = 0
        self._hold: int | None = None
        self._target: int | None = None
        self._known = threading.Event()
        self._next_round = threading.Event()
        self._wish = Wish.NOTHING  # this rank's own, as long as it is not granted
        self._granted = Wish.NOTHING
        self._stores: list[Any] = []
        self._closed = False
        self._threads: list[threading.Thread] = []
        self._starting = threading.RLock()  # a signal handler may come in between
        self._ending = False
        self._pid = os.getpid()

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
        # For the listener, the proposer, and the script's own thread.
        self._stores = [_connection() for _ in range(3)]
        self._start(self._listen)
        atexit.register(self._end_threads)

    def _start(self, act: Callable[[], None]) -> None:
        def guarded() -> None:
            try:
                act()
            except RuntimeError:  # of the connection
                if not self._closed:
                    LOG.warning(
                        "The launcher of these ranks has ended without them, so that they cannot "
                        "agree on a step to save at; rank %d ends soon.",
                        self.rank,
                    )
                    self.on_lost()

        with self._starting:
            if self._ending:
                return
            self._threads = [each for each in self._threads if each.is_alive()]
            self._threads.append(threading.Thread(target=guarded, daemon=True))
            self._threads[-1].start()

    def _end_threads(self) -> None:
        """End what waits for the store: as the interpreter ends, its answer would be an abort."""
        if os.getpid() != self._pid:
            return  # a child has no threads of ours, and our connections are not for it
        with self._starting:
            self._closed = self._ending = True
        with contextlib.suppress(RuntimeError):
            for key in (f"proposal-{self._round}-{self.rank}", f"{_FAILED}-{self.rank}"):
                self._stores[2].set(key, "1")
            self._next_round.set()
            for each in self._threads:
                each.join(10.0)

    def common(self, steps: list[int]) -> int | None:
        """Return the highest step that every rank has; all ranks call it, once."""
        return max(set(steps).intersection(*self.gathered("steps", steps)), default=None)

    def gathered(self, what: str, numbers: list[int]) -> list[list[int]]:
        """Return the numbers of each rank; all ranks call it, once for each `what`."""
        store = self._stores[2]
        store.set(f"{what}-{self.rank}", ",".join(map(str, numbers)))
        names = [f"{what}-{other}" for other in range(self.world_size)]
        store.wait(names, _START)
        found = [store.get(name).decode() for name in names]
        return [[int(word) for word in words.split(",") if word] for words in found]

    def propose(self, wish: Wish) -> None:
        """Ask all ranks for it; does not wait (a signal handler calls)."""
        self._wish = max(self._wish, wish)
        number = self._round

        def propose() -> None:
            store = self._stores[1]
            store.set(f"wish-{number}-{wish}", "1")
            for other in range(self.world_size):
                store.set(f"proposal-{number}-{other}", "1")

        self._start(propose)

    def _listen(self) -> None:
        store = self._stores[0]
        while True:
            number = self._round
            store.wait([f"proposal-{number}-{self.rank}"], _FOREVER)
            if self._ending:
                return
            self._hold = self.tracker.steps + 2
            self.tracker.due = True
            while self.tracker.steps >= self._hold:  # it went on while we looked
                self._hold = self.tracker.steps + 2
            wish = max(w for w in Wish if w == 0 or store.check([f"wish-{number}-{w}"]))
            store.set(f"answer-{number}-{self.rank}", f"{self._hold} {wish}")
            answers = []
            for other in range(self.world_size):
                key = f"answer-{number}-{other}"
                while not store.check([key]):  # one that has ended gives none
                    if self._ending:
                        return
                    time.sleep(_LOOK)
                answers.append(tuple(map(int, store.get(key).split())))
            self._granted = Wish(max(each[1] for each in answers))
            self._target = max(each[0] for each in answers)
            self._known.set()
            self._next_round.wait()
            if self._ending:
                return
            self._next_round.clear()

    def hand_over(self, what: str, own: bytes) -> list[bytes] | None:
        """Return what every rank handed over, on the first one.

        Returns:
            Nothing on the others; None if one of them has failed, or is to end.
        """
        store, found = self._stores[2], [own]
        try:
            if self.rank > 0:
                store.set(f"{what}-{self.rank}", own)
                return []
            for key in [f"{what}-{other}" for other in range(1, self.world_size)]:
                while not store.check([key]):
                    if store.check([f"{_FAILED}-{self.rank}"]) or self._wish == Wish.STOP:
                        return None
                    time.sleep(_LOOK)
                found.append(store.get(key))
                store.delete_key(key)
        except RuntimeError:  # of the connection
            return None
        return found

    def fail(self) -> None:
        """Tell the others that this rank has failed: nothing will be agreed on any more."""
        with contextlib.suppress(RuntimeError):
            for other in range(self.world_size):
                if other != self.rank:
                    self._stores[2].set(f"{_FAILED}-{other}", "1")

    def watch(self, act: Callable[[], None]) -> None:
        """Call `act` in a thread when another rank has failed, whatever this one waits for."""
        store = _connection()

        def wait() -> None:
            store.wait([f"{_FAILED}-{self.rank}"], _FOREVER)
            if not self._ending:
                act()

        self._start(wait)

    def granted(self) -> Wish:
        """Return what is to be done here; waits until it is agreed on."""
        if self._hold is None or self.tracker.steps < self._hold:
            return Wish.NOTHING
        self._known.wait()
        here = self._target is not None and self.tracker.steps >= self._target
        return self._granted if here else Wish.NOTHING

    def finish_round(self) -> None:
        """What was granted is done."""
        if self._wish <= self._granted:
            self._wish = Wish.NOTHING
        self._hold = self._target = None
        self._known.clear()
        self._round += 1
        self._next_round.set()
        if self._wish:
            self.propose(self._wish)

    @property
    def is_in_round(self) -> bool:
        """Whether something was proposed that is not done."""
        return self._hold is not None

    def wait_for_all(self, what: str, seconds: float) -> None:
        """Wait until every rank is as far, or for as long as they may take."""
        self._closed = True  # some of them end, and their launcher
        store = self._stores[2]
        keys = [f"{what}-{self._round}-{other}" for other in range(self.world_size)]
        try:
            store.set(keys[self.rank], "1")
            store.wait(keys, timedelta(seconds=seconds))
        except RuntimeError:
            return

    def close(self) -> None:
        """The launcher may end from now on."""
        self._closed = True


def _connection() -> Any:
    """Return a connection of its own to the launcher's store."""
    from torch._C._distributed_c10d import PrefixStore, TCPStore

    name = f"curitorch-autopatch/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}"
    store = TCPStore(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), is_master=False)
    return PrefixStore(name, store)
