"""kill -9 of the writer at any moment: at most the checkpoint under way is lost."""

import random
import time
from pathlib import Path

import pytest

from ..kinds import open_store
from ..store import Store
from .store_case import StoreCase, contents
from .writing import LARGE, start_writer, wait_for_lease

AFTER_SECONDS = 0.2  # at most, from the moment at which it began to put


class Kills(StoreCase):
    """Writers that are killed, in processes of their own."""

    def test_kill_9_loses_at_most_what_was_under_way(
        self, recipe: tuple[str, str], tmp_path: Path
    ) -> None:
        self._kill(self.KILLS, recipe, tmp_path)

    @pytest.mark.slow
    @pytest.mark.timeout(1800)
    def test_kill_9_at_many_moments_loses_at_most_what_was_under_way(
        self, recipe: tuple[str, str], tmp_path: Path
    ) -> None:
        self._kill(self.MANY_KILLS, recipe, tmp_path)

    def _kill(self, times: int, recipe: tuple[str, str], folder: Path) -> None:
        moments = random.Random(times)
        newest = 0
        for _ in range(times):
            said = self._write_and_kill(recipe, folder, newest + 1, moments)
            stored = [int(line.split()[1]) for line in said if line.startswith("stored")]
            with open_store(*recipe) as store:
                newest = check_all(store, folder, at_least=max([newest, *stored]))
                with wait_for_lease(store, "the-next-one", self.LEASE_SECONDS):
                    assert self.leftovers() == []
                assert check_all(store, folder, at_least=newest) == newest

    def _write_and_kill(
        self, recipe: tuple[str, str], folder: Path, first_step: int, moments: random.Random
    ) -> list[str]:
        with start_writer(*recipe, folder, first_step=first_step) as writer:
            assert writer.stdout is not None
            said = [writer.stdout.readline()]
            assert said == [f"putting {first_step}\n"]
            if first_step == 1:  # so that there is something to lose, however slow this machine is
                said.append(writer.stdout.readline())
                assert said[-1] == "stored 1\n"
            time.sleep(moments.uniform(0, AFTER_SECONDS))
            writer.kill()
            return [*said, *writer.stdout.read().splitlines()]


def check_all(store: Store, folder: Path, *, at_least: int) -> int:
    """Check that whatever exists is whole and that nothing durable is lost; returns the newest."""
    for checkpoint in store.list():
        found = contents(store, checkpoint, folder)
        assert found["small"] == b"%d" % checkpoint.step
        assert len(found["model.ckpt"]) == LARGE
    newest = store.newest_valid()
    assert (0 if newest is None else newest.step) >= at_least
    return at_least if newest is None else newest.step
