"""kill -9 of the writer at any moment: at most the checkpoint under way is lost."""

import random
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ...schema import UnreadableFile
from ..kinds import open_store
from ..store import Store
from .forks import Forks
from .store_case import DEAD_HOLDER, StoreCase, contents
from .writing import LARGE, wait_for_lease

AFTER_SECONDS = 0.2  # at most, from the moment at which it began to put


IMPORTS = """
from curitorch.external.stores import open_store
from curitorch.external.stores.testing import writing
open_store(sys.argv[1], sys.argv[2]).close()  # which imports its client
"""
WRITE = """
from curitorch.external.stores.testing import writing
writing.main()
"""


class Kills(StoreCase):
    """Writers that are killed, in processes of their own."""

    @pytest.mark.filterwarnings(DEAD_HOLDER)
    def test_kill_9_loses_at_most_what_was_under_way(
        self, recipe: tuple[str, str], tmp_path: Path
    ) -> None:
        self._kill(self.KILLS, recipe, tmp_path)

    @pytest.mark.slow
    @pytest.mark.timeout(1800)
    @pytest.mark.filterwarnings(DEAD_HOLDER)
    def test_kill_9_at_many_moments_loses_at_most_what_was_under_way(
        self, recipe: tuple[str, str], tmp_path: Path
    ) -> None:
        self._kill(self.MANY_KILLS, recipe, tmp_path)

    def _kill(self, times: int, recipe: tuple[str, str], folder: Path) -> None:
        lanes = [(self, recipe), *(self.another(f"lane-{n}") for n in range(1, self.LANES))]
        with Forks(IMPORTS, *recipe) as forks, ThreadPoolExecutor(len(lanes)) as pool:
            done = []
            for number, (case, opened) in enumerate(lanes):
                own = folder / f"lane {number}"
                own.mkdir()
                share = len(range(number, times, len(lanes)))
                moments = random.Random(f"{number} of {times}")
                done.append(pool.submit(_kill_in_turn, case, forks, opened, own, share, moments))
            for each in done:
                each.result()


def _kill_in_turn(
    case: StoreCase,
    forks: Forks,
    recipe: tuple[str, str],
    folder: Path,
    times: int,
    moments: random.Random,
) -> None:
    newest = 0
    for _ in range(times):
        said = _write_and_kill(forks, recipe, folder, newest + 1, moments)
        stored = [int(line.split()[1]) for line in said if line.startswith("stored")]
        with open_store(*recipe) as store:
            newest = check_all(store, folder, at_least=max([newest, *stored]))
            with wait_for_lease(store, "the-next-one", case.LEASE_SECONDS):
                assert case.leftovers() == []
                # More, if the server was still doing what the dead one had asked for.
                newest = check_all(store, folder, at_least=newest)
            assert check_all(store, folder, at_least=newest) == newest


def _write_and_kill(
    forks: Forks,
    recipe: tuple[str, str],
    folder: Path,
    first_step: int,
    moments: random.Random,
) -> list[str]:
    with forks.start(WRITE, *recipe, str(folder), str(first_step)) as writer:
        said = [writer.said.readline()]
        assert said == [f"putting {first_step}\n"]
        if first_step == 1:  # so that there is something to lose, however slow this machine is
            said.append(writer.said.readline())
            assert said[-1] == "stored 1\n"
        time.sleep(moments.uniform(0, AFTER_SECONDS))
        forks.kill(writer)
        return [*said, *writer.said.read().splitlines()]


def check_all(store: Store, folder: Path, *, at_least: int) -> int:
    """Check that whatever exists is whole and that nothing durable is lost; returns the newest."""
    for checkpoint in store.list():
        try:
            found = contents(store, checkpoint, folder)
        except UnreadableFile:
            if checkpoint in store.list():
                raise
            continue  # a server has just pruned it, for the dead one
        assert found["small"] == b"%d" % checkpoint.step
        assert len(found["model.ckpt"]) == LARGE
    newest = store.newest_valid()
    assert (0 if newest is None else newest.step) >= at_least
    return at_least if newest is None else newest.step
