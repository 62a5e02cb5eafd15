"""Several threads, writers and readers at once: each checkpoint is whole, and one of a step."""

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ..kinds import open_store
from ..retention import Retention
from ..store import CheckpointExists, Store, StoredCheckpoint
from .store_case import StoreCase, contents, file, new_folder


class Sharing(StoreCase):
    """Putting, reading and pruning at the same time."""

    def test_several_threads_may_use_one_store(self, store: Store, tmp_path: Path) -> None:
        def put(step: int) -> StoredCheckpoint:
            return store.put(step, {"m": file(tmp_path, os.urandom(10_000), f"{step}")})

        with ThreadPoolExecutor(4) as threads:
            put_ones = list(threads.map(put, range(12)))
        assert store.list() == put_ones
        for each in put_ones:
            store.verify(each)

    def test_of_several_that_put_the_same_step_one_wins(
        self, store: Store, recipe: tuple[str, str], tmp_path: Path
    ) -> None:
        def put(number: int) -> bytes | None:
            content = bytes([number]) * 100_000
            with open_store(*recipe) as another:
                try:
                    another.put(1, {"m": file(tmp_path, content, f"{number}")})
                except CheckpointExists:
                    return None
            return content

        with ThreadPoolExecutor(4) as threads:
            winners = [content for content in threads.map(put, range(4)) if content]
        [stored] = store.list()
        assert [contents(store, stored, new_folder(tmp_path))["m"]] == winners

    def test_readers_see_whole_checkpoints_while_one_writes_and_prunes(
        self, store: Store, recipe: tuple[str, str], tmp_path: Path
    ) -> None:
        store.put(0, {"m": file(tmp_path, bytes(300_000))})
        seen: list[int] = []
        ended = threading.Event()

        def read() -> None:
            with open_store(*recipe) as another:
                while not ended.is_set() or not seen:
                    newest = another.newest_valid()
                    seen.append(-1 if newest is None else newest.step)

        with ThreadPoolExecutor(1) as threads:
            reading = threads.submit(read)
            try:
                for step in range(1, 16):
                    store.put(step, {"m": file(tmp_path, os.urandom(300_000))})
                    store.prune(Retention(newest=1))
            finally:
                ended.set()
            reading.result()
        assert -1 not in seen
        assert seen == sorted(seen)
