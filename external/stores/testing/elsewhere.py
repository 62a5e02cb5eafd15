"""The process that saves in the background gets the store pickled, and the trainer's lease."""

import time
from pathlib import Path

import pytest

from ..store import LeaseLost, Store
from .other_process import lease_elsewhere, put_elsewhere
from .store_case import StoreCase, contents, file
from .writing import wait_for_lease


class Elsewhere(StoreCase):
    """A store that is used in two processes at once."""

    def test_a_pickled_store_is_the_same_store_in_another_process(
        self, store: Store, tmp_path: Path
    ) -> None:
        first = store.put(1, {"m": file(tmp_path, b"here")})
        second = put_elsewhere(store, 2, {"m": file(tmp_path, b"there")}, details={"epoch": 4})
        assert store.list() == [first, second]
        assert contents(store, second, tmp_path) == {"m": b"there"}

    def test_a_lease_is_good_in_another_process_for_as_long_as_it_is_the_newest(
        self, store: Store, tmp_path: Path
    ) -> None:
        with store.lease("trainer") as lease:
            put = put_elsewhere(store, 1, {"m": file(tmp_path, b"1")}, lease=lease)
            assert store.put(1, {"m": file(tmp_path, b"1")}, lease=lease) == put
        with store.lease("next"):
            with pytest.raises(LeaseLost, match=r"trainer|lease"):
                put_elsewhere(store, 2, {"m": file(tmp_path, b"2")}, lease=lease)
            assert store.list() == [put]

    def test_a_dead_holders_lease_is_good_until_there_is_a_newer_one(
        self, store: Store, tmp_path: Path
    ) -> None:
        with lease_elsewhere(store, "trainer") as (lease, holder):
            holder.kill()
            holder.wait()
        put = [store.put(1, {"m": file(tmp_path, b"1")}, lease=lease)]
        time.sleep(self.LEASE_RUNS_OUT_SECONDS)
        put.append(put_elsewhere(store, 2, {"m": file(tmp_path, b"2")}, lease=lease))
        with wait_for_lease(store, "next", self.LEASE_SECONDS):
            with pytest.raises(LeaseLost, match=r"trainer|lease"):
                store.put(3, {"m": file(tmp_path, b"3")}, lease=lease)
            assert store.list() == put
        assert self.leftovers() == []
