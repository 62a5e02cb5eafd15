"""One writer at a time: who comes second is refused, who was overtaken writes nothing more."""

import time
from pathlib import Path

import pytest

from ..kinds import open_store
from ..store import Lease, LeaseLost, Store
from .store_case import DEAD_HOLDER, StoreCase, file
from .writing import start_writer, wait_for_lease


class Leases(StoreCase):
    """Leases, in this process and in others."""

    def test_the_token_grows_with_every_lease(
        self, store: Store, recipe: tuple[str, str], tmp_path: Path
    ) -> None:
        tokens = []
        with open_store(*recipe) as another:
            for each, holder in ((store, "a"), (store, "a"), (another, "b"), (store, "a")):
                with each.lease(holder) as lease:
                    assert lease.holder == holder
                    tokens.append(lease.token)
        assert tokens == sorted(set(tokens))

    def test_who_holds_the_lease_puts_deletes_and_prunes(
        self, store: Store, tmp_path: Path
    ) -> None:
        with store.lease("node-a") as lease:
            store.put(1, {"m": file(tmp_path, b"1")}, lease=lease)
            put = store.put(2, {"m": file(tmp_path, b"2")}, lease=lease)
            store.delete(1, lease=lease)
            assert store.list() == [put]

    def test_a_second_one_is_refused_and_told_who_holds_it(
        self, store: Store, recipe: tuple[str, str], tmp_path: Path
    ) -> None:
        with open_store(*recipe) as another:
            with store.lease("node-a") as lease:
                for each in (another, store):
                    with pytest.raises(LeaseLost, match="node-a"), each.lease("node-b"):
                        pass
                store.put(1, {"m": file(tmp_path, b"1")}, lease=lease)
            with another.lease("node-b"):
                pass

    def test_a_lease_that_was_overtaken_writes_nothing(
        self, store: Store, recipe: tuple[str, str], tmp_path: Path
    ) -> None:
        with store.lease("node-a") as old:
            put = store.put(1, {"m": file(tmp_path, b"1")}, lease=old)
        with open_store(*recipe) as another, another.lease("node-b") as new:
            with pytest.raises(LeaseLost):
                store.put(2, {"m": file(tmp_path, b"2")}, lease=old)
            with pytest.raises(LeaseLost):
                store.delete(1, lease=old)
            assert store.list() == [put]
            another.put(2, {"m": file(tmp_path, b"new")}, lease=new)
        assert self.leftovers() == []

    @pytest.mark.parametrize("days", [1, -1])
    def test_no_clock_of_a_writer_decides_who_holds_it(
        self, store: Store, recipe: tuple[str, str], tmp_path: Path, days: int
    ) -> None:
        now = time.time
        with open_store(*recipe) as another, store.lease("node-a") as lease:
            with pytest.MonkeyPatch.context() as clock:
                clock.setattr(time, "time", lambda: now() + days * 86_400)
                with pytest.raises(LeaseLost, match="node-a"), another.lease("node-b"):
                    pass
                put = store.put(1, {"m": file(tmp_path, b"1")}, lease=lease)
            store.put(2, {"m": file(tmp_path, b"2")}, lease=lease)
            assert store.list()[0] == put

    def test_a_made_up_lease_writes_nothing(self, store: Store, tmp_path: Path) -> None:
        for made_up in (Lease("node-a", 0), Lease("node-a", 10**6)):
            with pytest.raises(LeaseLost):
                store.put(1, {"m": file(tmp_path, b"1")}, lease=made_up)
        assert store.list() == []

    @pytest.mark.parametrize("holder", ["", "../up", "a b", "a\n"])
    def test_a_holder_needs_a_safe_name(self, store: Store, holder: str) -> None:
        with pytest.raises(ValueError, match="safe name"), store.lease(holder):
            pass

    @pytest.mark.filterwarnings(DEAD_HOLDER)
    def test_kill_9_of_the_holder_frees_the_lease(
        self, store: Store, recipe: tuple[str, str], tmp_path: Path
    ) -> None:
        with start_writer(*recipe, tmp_path, first_step=1) as writer:
            assert writer.stdout is not None
            assert writer.stdout.readline() == "putting 1\n"
            with pytest.raises(LeaseLost), store.lease("node-b"):
                pass
            writer.kill()
            writer.wait()
        with wait_for_lease(store, "node-b", self.LEASE_SECONDS) as lease:
            store.put(10**6, {"m": file(tmp_path, b"new")}, lease=lease)
