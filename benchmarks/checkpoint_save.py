"""Saving a checkpoint: our plugins against torch's and Lightning's, in turn, in one sitting.

    python benchmarks/checkpoint_save.py --megabytes 1000 --rounds 7

The state is a transformer's and its AdamW's. Of each peer, medians:

    first     milliseconds that training stops for the first save
    stall     the same for later ones
    visible   until the file is whole at its name
    durable   until it would survive a power loss; for peers that do not sync, we do it then
    CPU       of all processes, until then
    memory    megabytes more at a time, in all processes, in a process of its own
    lost      milliseconds that a training on two cores is later for one save, stall included

For figures to be reported nothing else may run: what is lost above all is a guess otherwise.
"""

import math
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections import defaultdict
from pathlib import Path

import click
import psutil
import torch
from checkpoint_peers import ASYNCHRONOUS, PEERS, OursStore, Peer
from memory_watch import MemoryWatch
from training import Training

Row = dict[str, list[float]]


@click.command()
@click.option("--megabytes", default=1000, show_default=True, help="Size of the state.")
@click.option("--rounds", default=7, show_default=True, help="Warm saves of each peer.")
@click.option("--folder", type=click.Path(path_type=Path), help="Where; a temporary one without.")
@click.option("--only", multiple=True, help="Part of a peer's name; all without.")
@click.option("--training/--no-training", default=True, help="Measure what training loses.")
@click.option("--memory-of", hidden=True, help="Print the memory that one peer needs.")
def main(
    megabytes: int,
    rounds: int,
    folder: Path | None,
    only: tuple[str, ...],
    training: bool,
    memory_of: str | None,
) -> None:
    """Print medians, and ratios to what they are held against."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(2)
    trained = Training(megabytes)
    names = [name for name in PEERS if not only or any(part in name for part in only)]
    with tempfile.TemporaryDirectory(dir=folder) as place:
        if memory_of is not None:
            print(_memory(PEERS[memory_of](), trained, Path(place)))
            return
        _print_load("before")
        rows = _times(names, trained, Path(place), rounds, lost=training)
        for name in names:
            click.echo(f"memory of {name}", err=True)
            rows[name]["memory"] = [_memory_apart(name, megabytes, folder)]
        _print_rows(rows, megabytes)
        if names == list(PEERS):
            _print_targets(rows, megabytes)
        _print_frozen(trained, Path(place))
        _print_load("after")


def _times(
    names: list[str], training: Training, place: Path, rounds: int, *, lost: bool
) -> dict[str, Row]:
    peers = {name: PEERS[name]() for name in names}
    rows: dict[str, Row] = defaultdict(lambda: defaultdict(list))
    for number in range(rounds + 1):
        for name, peer in peers.items():
            row = rows[name]
            cpu, begun = _cpu(), time.perf_counter()
            peer.save(training.state(), place / f"{number}.ckpt")
            row["stall" if number else "first"].append(_since(begun))
            peer.wait()
            row["visible"].append(_since(begun))
            if not peer.syncs:
                _sync(place)
            row["durable"].append(_since(begun))
            row["CPU"].append((_cpu() - cpu) * 1e3)
            stopped, there = (row["stall"] or row["first"])[-1], row["durable"][-1]
            said = f"stopped for {stopped:.0f} ms, durable after {there:.0f} ms"
            click.echo(f"save {number}/{rounds} {name}: {said}", err=True)
            _empty(place)
            training.step()
    for number in range(rounds if lost else 0):
        for name, peer in peers.items():
            rows[name]["lost"].append(_lost(peer, training, place / f"{number}.ckpt"))
            later = f"{rows[name]['lost'][-1]:.0f} ms later"
            click.echo(f"training {number + 1}/{rounds} {name}: {later}", err=True)
            _empty(place)
    for peer in peers.values():
        peer.close()
    return rows


def _lost(peer: Peer, training: Training, path: Path) -> float:
    """Return how much later a training is that saves once and goes on until that is done."""
    usual = statistics.median(training.step() for _ in range(5))
    begun, steps = time.perf_counter(), 0
    peer.save(training.state(), path)
    while not (peer.is_done() and steps):  # one step at least, which a deferred copy holds up
        training.step()
        steps += 1
    elapsed = time.perf_counter() - begun
    peer.wait()
    return (elapsed - steps * usual) * 1e3


def _memory_apart(name: str, megabytes: int, folder: Path | None) -> float:
    command = [sys.executable, __file__, "--megabytes", str(megabytes), "--memory-of", name]
    if folder is not None:
        command += ["--folder", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])


def _memory(peer: Peer, training: Training, place: Path) -> float:
    """Return the megabytes that two saves need, more than training alone."""
    with MemoryWatch() as before:
        training.step()
    with MemoryWatch() as watch:
        for number in range(2):
            peer.save(training.state(), place / f"{number}.ckpt")
            training.step()
            peer.wait()
    peer.close()
    return (watch.peak - before.peak) / 1e6


def _print_rows(rows: dict[str, Row], megabytes: int) -> None:
    columns = ["first", "stall", "visible", "durable", "CPU", "memory", "lost"]
    print(f"{f'{megabytes} MB':30}" + "".join(f"{column:>9}" for column in columns))
    for name, row in rows.items():
        cells = [statistics.median(row[column] or [math.nan]) for column in columns]
        print(f"{name:30}" + "".join(f"{cell:9.0f}" for cell in cells))


def _print_targets(rows: dict[str, Row], megabytes: int) -> None:
    """Print ratios of each round's pairs: what else the machine does is then in both."""
    sync, ours, deferred = (
        "VerifiedCheckpointIO",
        "AsyncCheckpointIO",
        "AsyncCheckpointIO, deferred",
    )
    lightning, asynchronous = "Lightning TorchCheckpointIO", "Lightning AsyncCheckpointIO"
    for column, a, b, target in [
        ("stall", ours, "memcpy into prepared memory", 1.5),
        ("stall", ours, asynchronous, 0.25),
        ("durable", ours, lightning, 0.35),
        ("durable", ours, "raw direct write + checksum", 1.3),
        ("durable", sync, "torch.save", 1.0),
    ]:
        pairs = zip(rows[a][column], rows[b][column], strict=True)
        ratio = statistics.median(x / y for x, y in pairs)
        _print_target(f"{column} of {a} / {b}", ratio, target, ".2f")
    scaled = 30 * max(1, megabytes / 1000)
    _print_target("stall deferred, ms", statistics.median(rows[deferred]["stall"]), scaled, ".0f")
    for name, target in ((ours, 1.1), (sync, 0.1)):
        ratio = rows[name]["memory"][0] / rows["memcpy into prepared memory"]["memory"][0]
        _print_target(f"memory of {name} / one copy", ratio, target, ".2f")
    if not rows[ours]["lost"]:
        return
    theirs = [name for name in ASYNCHRONOUS if name not in (ours, deferred)]
    least = min(statistics.median(rows[name]["lost"]) for name in theirs)
    for name in (ours, deferred):
        ratio = statistics.median(rows[name]["lost"]) / least
        _print_target(f"lost by {name} / least of theirs", ratio, 1.0, ".2f")


def _print_target(what: str, found: float, target: float, form: str) -> None:
    verdict = "met" if found <= target else "MISSED"
    print(f"{what}: {found:{form}} (target ≤ {target:g}: {verdict})")


def _print_frozen(training: Training, place: Path) -> None:
    """Print what saves write when nine tenths of the layers are frozen."""
    layers = list(training.model)
    frozen = layers[: round(len(layers) * 0.9)]
    for layer in frozen:
        for parameter in layer.parameters():
            training.optimizer.state.pop(parameter, None)
            parameter.requires_grad_(False)
            parameter.grad = None
    print(f"{len(frozen)} of {len(layers)} layers frozen, MB written by each save, and its ms:")
    for name, share in (("plain", False), ("share_unchanged", True)):
        peer = OursStore(asynchronous=True, share_unchanged=share)
        written, times = [], []
        for _ in range(5):
            training.step()
            before, begun = _inodes(place), time.perf_counter()
            peer.save(training.state(), place / "x")
            peer.wait()
            times.append(_since(begun))
            after = _inodes(place)
            written.append(sum(size for inode, size in after.items() if inode not in before) / 1e6)
        peer.close()
        _empty(place)
        sizes, millis = (", ".join(f"{v:.0f}" for v in each) for each in (written, times))
        print(f"  {name:16} {sizes} MB; {millis} ms")


def _inodes(place: Path) -> dict[int, int]:
    found = [path.stat() for path in place.rglob("*") if path.is_file()]
    return {about.st_ino: about.st_size for about in found}


def _since(begun: float) -> float:
    return (time.perf_counter() - begun) * 1e3


def _cpu() -> float:
    """Return the seconds that this process, its children and its former ones have computed."""
    own = time.process_time()
    former = sum(os.times()[2:4])
    living = (c.cpu_times() for c in psutil.Process().children(recursive=True))
    return own + former + sum(t.user + t.system + t.children_user for t in living)


def _sync(place: Path) -> None:
    for path in [*(p for p in place.rglob("*") if p.is_file()), place]:
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)


def _empty(place: Path) -> None:
    for left in place.iterdir():
        if left.is_dir():
            shutil.rmtree(left)
        else:
            left.unlink()


def _print_load(when: str) -> None:
    print(f"load {when}: {', '.join(f'{load:.1f}' for load in os.getloadavg())}", flush=True)


if __name__ == "__main__":
    main()
