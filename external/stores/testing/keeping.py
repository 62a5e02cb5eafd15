"""What is put comes back, whole; what must not be put is refused and leaves no trace."""

import os
from pathlib import Path
from typing import Any

import pytest

from ...schema import UnreadableFile
from ..kinds import open_store
from ..retention import Retention
from ..store import CheckpointExists, Store
from .store_case import StoreCase, contents, file, new_folder

HOSTILE_NAMES = [
    *("", ".", "..", "../up", "a/b", "/etc/passwd", "a\\b", "a..b", ".hidden", "-rf"),
    *("a b", "a\0b", "a\nb", "é", "%2e%2e%2fup", "x" * 201),
]
DETAILS = {
    "epoch": 4,
    "metrics": {"val/loss": 3e-7, "accuracy": 1.0},
    "none": None,
    "hostile": "spaces, \"quotes\", $HOME, 'x', 日本, \n, \0, <b>",
    "nested": [[1, [2.5, {"": True}]]],
}


class Keeping(StoreCase):
    """Putting, listing, fetching, deleting and pruning."""

    def test_a_new_store_is_empty(self, store: Store) -> None:
        assert store.list() == []
        assert store.newest_valid() is None
        store.delete(7)
        assert store.prune(Retention(newest=1)) == []

    def test_a_checkpoint_goes_round(
        self, store: Store, recipe: tuple[str, str], tmp_path: Path
    ) -> None:
        given = {"model.ckpt": os.urandom(70_001), "rank=0_of-2.bin": b"\0\r\n", "empty": b""}
        paths = {name: file(tmp_path, data, f"source {name}") for name, data in given.items()}
        put = store.put(120, paths, details=DETAILS)
        assert (put.step, put.details, put.bytes) == (120, DETAILS, 70_004)
        assert store.list() == [put]
        with open_store(*recipe) as another:
            newest = another.newest_valid()
            assert newest == put
            assert contents(another, newest, new_folder(tmp_path)) == given

    def test_a_large_file_goes_round(self, store: Store, tmp_path: Path) -> None:
        content = os.urandom(8 << 20)
        put = store.put(0, {"model.ckpt": file(tmp_path, content)})
        store.verify(put)
        assert contents(store, put, new_folder(tmp_path)) == {"model.ckpt": content}

    def test_the_newest_has_the_highest_step_and_steps_are_listed_in_order(
        self, store: Store, tmp_path: Path
    ) -> None:
        for step in (5, 100_000_000, 3, 12):
            store.put(step, {"m": file(tmp_path, b"%d" % step)})
        assert steps(store) == [3, 5, 12, 100_000_000]
        newest = store.newest_valid()
        assert newest is not None
        assert contents(store, newest, new_folder(tmp_path)) == {"m": b"100000000"}

    def test_sources_may_change_after_put(self, store: Store, tmp_path: Path) -> None:
        source = file(tmp_path, b"as it was put")
        put = store.put(1, {"m": source})
        with source.open("r+b") as same_file:
            same_file.write(b"as it is now!")
        assert contents(store, put, new_folder(tmp_path)) == {"m": b"as it was put"}
        source.unlink()
        store.verify(put)

    def test_a_fetched_file_can_be_put_again_as_another_step(
        self, store: Store, tmp_path: Path
    ) -> None:
        put = store.put(1, {"m": file(tmp_path, b"same")})
        again = store.put(2, {"m": store.fetch(put, "m", new_folder(tmp_path))})
        store.delete(1)
        assert contents(store, again, tmp_path) == {"m": b"same"}

    def test_a_file_that_is_only_in_memory_can_be_put(self, store: Store, tmp_path: Path) -> None:
        if not hasattr(os, "memfd_create"):
            pytest.skip("this system has no files in memory")
        content = os.urandom(70_001)
        descriptor = os.memfd_create("model")
        try:
            os.write(descriptor, content)
            put = store.put(1, {"m": Path(f"/proc/self/fd/{descriptor}")})
        finally:
            os.close(descriptor)
        assert contents(store, put, tmp_path) == {"m": content}

    def test_what_was_drafted_may_be_taken_over(self, store: Store, tmp_path: Path) -> None:
        with store.drafting() as drafts:
            files = {"m": file(drafts, b"moved", "m"), "n": file(drafts, b"", "n")}
            put = store.put(1, files, move=True)
            file(drafts, b"not put", "left over")
        assert not drafts.exists()
        assert contents(store, put, tmp_path) == {"m": b"moved", "n": b""}
        assert self.leftovers() == []

    def test_what_its_writer_knows_is_recorded_or_the_file_is_refused(
        self, store: Store, tmp_path: Path
    ) -> None:
        given = {"m": file(tmp_path, b"as it is", "m"), "n": file(tmp_path, b"n", "n")}
        known = store.put(1, given).files
        assert store.put(2, given, known={"m": known["m"]}).files == known
        assert store.put(2, given, known=known).files == known  # the same once more
        given["m"].write_bytes(b"as it wa")
        with pytest.raises(UnreadableFile, match="not what its writer recorded"):
            store.put(3, given, known=known)
        with pytest.raises(CheckpointExists):
            store.put(2, given)
        assert steps(store) == [1, 2]
        assert self.leftovers() == []

    def test_the_newest_is_fetched_in_one(self, store: Store, tmp_path: Path) -> None:
        assert store.fetch_newest_valid("m", tmp_path) is None
        older = store.put(1, {"m": file(tmp_path, b"older")})
        newer = store.put(2, {"m": file(tmp_path, b"newer"), "n": file(tmp_path, b"n", "n")})
        found = store.fetch_newest_valid("m", new_folder(tmp_path))
        assert found is not None
        assert (found[0], found[1].read_bytes()) == (newer, b"newer")
        store.delete(2)
        found = store.fetch_newest_valid("m", new_folder(tmp_path))
        assert found is not None
        assert (found[0], found[1].read_bytes()) == (older, b"older")

    def test_the_same_checkpoint_twice_is_fine(self, store: Store, tmp_path: Path) -> None:
        source = file(tmp_path, b"same")
        first = store.put(1, {"m": source}, details=DETAILS)
        assert store.put(1, {"m": source}, details=DETAILS) == first
        assert store.list() == [first]
        store.verify(first)

    def test_another_checkpoint_of_the_step_is_refused(self, store: Store, tmp_path: Path) -> None:
        first = store.put(1, {"m": file(tmp_path, b"first")})
        with pytest.raises(CheckpointExists):
            store.put(1, {"m": file(tmp_path, b"other")})
        assert store.list() == [first]
        assert contents(store, first, new_folder(tmp_path)) == {"m": b"first"}
        store.delete(1)
        store.put(1, {"m": file(tmp_path, b"other")})

    @pytest.mark.parametrize("name", HOSTILE_NAMES)
    def test_a_name_that_could_lead_elsewhere_is_refused(
        self, store: Store, tmp_path: Path, name: str
    ) -> None:
        with pytest.raises(ValueError, match="safe name"):
            store.put(1, {name: file(tmp_path, b"x"), "m": file(tmp_path, b"x")})
        assert store.list() == []

    @pytest.mark.parametrize("step", [-1, True, 1.0, "1"])
    def test_what_is_no_step_is_refused(self, store: Store, tmp_path: Path, step: Any) -> None:
        with pytest.raises(ValueError, match="step"):
            store.put(step, {"m": file(tmp_path, b"x")})
        assert store.list() == []

    def test_a_checkpoint_without_files_is_refused(self, store: Store) -> None:
        with pytest.raises(ValueError, match="file"):
            store.put(1, {})
        assert store.list() == []

    def test_details_that_json_has_no_form_for_are_refused(
        self, store: Store, tmp_path: Path
    ) -> None:
        with pytest.raises((TypeError, ValueError)):
            store.put(1, {"m": file(tmp_path, b"x")}, details={"x": object()})
        assert store.list() == []

    def test_a_source_that_cannot_be_read_leaves_no_trace(
        self, store: Store, tmp_path: Path
    ) -> None:
        for unreadable in (tmp_path / "nowhere", new_folder(tmp_path)):
            with pytest.raises(OSError, match=r"nowhere|directory"):
                store.put(1, {"a": file(tmp_path, b"x"), "b": unreadable})
        assert store.list() == []
        assert self.leftovers() == []

    def test_what_is_not_there_cannot_be_fetched(self, store: Store, tmp_path: Path) -> None:
        put = store.put(1, {"m": file(tmp_path, b"x")})
        with pytest.raises(UnreadableFile, match="other"):
            store.fetch(put, "other", tmp_path)
        store.delete(1)
        with pytest.raises(UnreadableFile):
            store.fetch(put, "m", new_folder(tmp_path))
        with pytest.raises(UnreadableFile):
            store.verify(put)
        assert store.newest_valid() is None

    @pytest.mark.parametrize(
        ("retention", "kept"),
        [
            (Retention(newest=2), [7, 8]),
            (Retention(newest=0), [1, 2, 3, 4, 5, 6, 7, 8]),
            (Retention(newest=1, every=3), [3, 6, 8]),
            (Retention(newest=1, best=2, monitor="loss"), [2, 5, 8]),
            (Retention(newest=1, best=1, monitor="loss", mode="max"), [1, 8]),
            (Retention(newest=99), [1, 2, 3, 4, 5, 6, 7, 8]),
        ],
    )
    def test_prune_keeps_what_the_rules_keep(
        self, store: Store, tmp_path: Path, retention: Retention, kept: list[int]
    ) -> None:
        losses = [9.0, 0.1, 5.0, float("nan"), 0.2, 7.0, 8.0]  # and none at step 8
        for step in range(1, 9):
            metrics = {"loss": losses[step - 1]} if step < 8 else {}
            store.put(step, {"m": file(tmp_path, b"%d" % step)}, details={"metrics": metrics})
        gone = store.prune(retention)
        assert steps(store) == kept
        assert sorted([*gone, *kept]) == list(range(1, 9))
        assert store.prune(retention) == []
        assert self.leftovers() == []


def steps(store: Store) -> list[int]:
    """Return the steps that a store lists."""
    return [checkpoint.step for checkpoint in store.list()]
