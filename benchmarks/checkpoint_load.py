"""Loading a checkpoint: verified against unverified, in turns, each in a new process.

    python benchmarks/checkpoint_load.py --megabytes 1000 --rounds 3

`ready` is the time until a model and its AdamW have what the file holds; of a mapped file the time
until one tensor is used, and until all are. Hot: the file is in the page cache; cold: it is not.
The order is random: what memory costs depends on who gave it back before.
"""

import os
import random
import statistics
import tempfile
import time
import warnings
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import torch
from training import Training, tensors_of

from curitorch.external.stores import LocalStore, Saver, VerifiedCheckpointIO
from curitorch.external.stores.files.verified_load import load_verified
from curitorch.external.stores.single_file import NAME, read
from curitorch.external.stores.testing.forks import Forks

State = dict[str, Any]

BEFORE = "sys.path.insert(0, sys.argv[1]); import checkpoint_load"
LOAD = """
from pathlib import Path
import checkpoint_load
checkpoint_load.load_here(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
"""


def _recorded(path: Path) -> Any:
    return read(path).files[NAME]


def _from_store(path: Path) -> State:
    store = LocalStore(path.parent / "store")
    found = store.fetch_newest_valid("model.ckpt", path.parent)
    assert found is not None
    return load_verified(found[1], None)


LOADS: dict[str, Callable[[Path], State]] = {
    "torch.load": torch.load,
    "VerifiedCheckpointIO": lambda path: VerifiedCheckpointIO().load_checkpoint(path),
    "newest valid of a LocalStore": _from_store,
    "load_verified, compared with nothing": lambda path: load_verified(path, None),
}
MAPPED: dict[str, Callable[[Path], State]] = {
    "torch.load(mmap=True)": lambda path: torch.load(path, mmap=True),
    "load_verified(mmap=True), nothing": lambda path: load_verified(path, None, mmap=True),
    "load_verified(mmap=True)": lambda path: load_verified(path, _recorded(path), mmap=True),
}


@click.command()
@click.option("--megabytes", default=1000, show_default=True, help="Size of the state.")
@click.option("--rounds", default=3, show_default=True, help="Loads of each kind.")
@click.option("--folder", type=click.Path(path_type=Path), help="Where; a temporary one without.")
def main(megabytes: int, rounds: int, folder: Path | None) -> None:
    """Print medians, and ratios to what they are held against."""
    warnings.simplefilter("ignore")
    _print_load("before")
    with (
        Forks(BEFORE, str(Path(__file__).parent)) as forks,
        tempfile.TemporaryDirectory(dir=folder) as place,
    ):
        path = _save(megabytes, Path(place))
        times: dict[tuple[str, str], list[float]] = defaultdict(list)
        kinds = [(name, cache) for name in (*LOADS, *MAPPED) for cache in ("hot", "cold")]
        turns = [kind for _ in range(rounds) for kind in random.sample(kinds, len(kinds))]
        for number, (name, cache) in enumerate(turns, start=1):
            found = _load(forks, name, path, megabytes, cache)
            for what, millis in found.items():
                times[name, f"{what}, {cache}"].append(millis)
            cells = ", ".join(f"{what} {millis:.0f} ms" for what, millis in found.items())
            click.echo(f"{number}/{len(turns)} {name}, {cache}: {cells}", err=True)
    _print(times, megabytes)
    _print_load("after")


def _save(megabytes: int, place: Path) -> Path:
    click.echo(f"Writing two files of {megabytes} MB", err=True)
    state, path = Training(megabytes).state(), place / "x.ckpt"
    VerifiedCheckpointIO().save_checkpoint(state, path)
    Saver(LocalStore(place / "store")).save(1, state)
    return path


def _load(forks: Forks, name: str, path: Path, megabytes: int, cache: str) -> dict[str, float]:
    for file in (path, *path.parent.glob("store/*/*")):
        with file.open("rb") as opened:
            if cache == "hot":
                while opened.read(1 << 24):
                    pass
            else:
                os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    with forks.start(LOAD, name, str(path), str(megabytes)) as fork:
        found = (line.split("=") for line in fork.said.read().splitlines())
        return {what: float(millis) for what, millis in found}


def load_here(name: str, path: Path, megabytes: int) -> None:
    """Load in this process, which has loaded nothing before, and print the milliseconds."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(2)
    if name in LOADS:
        training = Training(megabytes)
        begun = time.perf_counter()
        state = LOADS[name](path)
        training.model.load_state_dict(state["state_dict"])
        training.optimizer.load_state_dict(state["optimizer_states"][0])
        print(f"ready={_since(begun)}")
        return
    begun = time.perf_counter()
    tensors = tensors_of(MAPPED[name](path))
    tensors[0].sum()
    print(f"first use={_since(begun)}")
    for tensor in tensors:
        tensor.sum()
    print(f"all used={_since(begun)}")


def _print(times: dict[tuple[str, str], list[float]], megabytes: int) -> None:
    for name, columns in ((LOADS, ["ready"]), (MAPPED, ["first use", "all used"])):
        heads = [f"{column}, {cache}" for column in columns for cache in ("hot", "cold")]
        print(f"{f'{megabytes} MB, ms':38}" + "".join(f"{head:>17}" for head in heads))
        for each in name:
            cells = [statistics.median(times[each, head]) for head in heads]
            print(f"{each:38}" + "".join(f"{cell:17.0f}" for cell in cells))
    for ours, theirs, column, target in [
        ("VerifiedCheckpointIO", "torch.load", "ready", 1.1),
        ("newest valid of a LocalStore", "torch.load", "ready", 1.1),
        ("load_verified(mmap=True), nothing", "torch.load(mmap=True)", "first use", 1.0),
        ("load_verified(mmap=True)", "torch.load(mmap=True)", "first use", 1.0),
        ("load_verified(mmap=True)", "torch.load(mmap=True)", "all used", 1.0),
    ]:
        for cache in ("hot", "cold"):
            key = f"{column}, {cache}"
            pairs = zip(times[ours, key], times[theirs, key], strict=True)
            ratio = statistics.median(a / b for a, b in pairs)
            verdict = "met" if ratio <= target else "MISSED"
            print(f"{key} of {ours} / {theirs}: {ratio:.2f} (target ≤ {target:g}: {verdict})")


def _since(begun: float) -> float:
    return (time.perf_counter() - begun) * 1e3


def _print_load(when: str) -> None:
    print(f"load {when}: {', '.join(f'{load:.1f}' for load in os.getloadavg())}", flush=True)


if __name__ == "__main__":
    main()
