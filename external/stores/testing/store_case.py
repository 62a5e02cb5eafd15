"""What the tests of a store need to know about it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from ..kinds import open_store
from ..store import Store, StoredCheckpoint

DEAD_HOLDER = "ignore:Waiting to see whether the holder lives"  # it does not: it was killed


class StoreCase:
    """Fixtures and hooks; only `recipe` has to be overridden.

    Attributes:
        KILLS: How many writers are killed in the quick test of it.
        MANY_KILLS: How many in the slow one.
        LANES: In how many stores at a time that is done, where a dead holder's lease is waited
            for; above 1 override `another`.
        LEASE_SECONDS: Within which the lease of a holder that was killed is free again.
        LEASE_RUNS_OUT_SECONDS: After which a lease that nobody renews has run out; 0 if leases do
            not go by time.
    """

    KILLS = 10
    MANY_KILLS = 100
    LANES = 1
    LEASE_SECONDS = 60.0
    LEASE_RUNS_OUT_SECONDS = 0.0

    @pytest.fixture
    def recipe(self) -> tuple[str, str]:
        """Return what `open_store` opens, here and in child processes: an empty store."""
        raise NotImplementedError("Override the fixture 'recipe' to return a type and settings.")

    @pytest.fixture
    def store(self, recipe: tuple[str, str]) -> Iterator[Store]:
        """Open the store of `recipe`."""
        with open_store(*recipe) as store:
            yield store

    def another(self, name: str) -> tuple["StoreCase", tuple[str, str]]:
        """Return one more empty store's recipe, and a case whose `leftovers` are that store's."""
        raise NotImplementedError("Override another(), or leave LANES at 1.")

    def damage(self, checkpoint: StoredCheckpoint, name: str, content: bytes | None) -> None:
        """Make `content` what is stored of one file, behind the store's back; None deletes it."""
        pytest.skip("damage() is not overridden: nobody says how to get behind the store's back")

    def damage_sidecar(self, step: int, content: bytes) -> None:
        """Make `content` the sidecar of `step`, behind the store's back."""
        pytest.skip("damage_sidecar() is not overridden: how to get behind the store's back?")

    def leftovers(self) -> list[str]:
        """Return what is stored and belongs to no checkpoint: names, for the message."""
        return []


def file(folder: Path, content: bytes, name: str = "a file") -> Path:
    """Return a new local file with `content`."""
    path = folder / name
    path.write_bytes(content)
    return path


def new_folder(folder: Path) -> Path:
    """Return a new folder in `folder`."""
    path = folder / f"folder {len(list(folder.iterdir()))}"
    path.mkdir()
    return path


def contents(store: Store, checkpoint: StoredCheckpoint, folder: Path) -> dict[str, bytes]:
    """Fetch all files of a checkpoint."""
    return {name: store.fetch(checkpoint, name, folder).read_bytes() for name in checkpoint.files}
