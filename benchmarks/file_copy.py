"""How long a durable, hashed copy of a large file takes, against what the system itself offers.

    python benchmarks/file_copy.py --megabytes 1000 --rounds 7 --folder /data

In every round each way runs once, in turn. The source is a file in memory, as the one that a
checkpoint is staged in. Of every way the copy is durable in the end; `dd` hashes nothing.
"""

import hashlib
import os
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import click

from curitorch.external.checksum import checksum
from curitorch.external.stores.files.file_copy import copy_file


@click.command()
@click.option("--megabytes", default=1000, show_default=True)
@click.option("--rounds", default=7, show_default=True)
@click.option("--folder", default=".", show_default=True, help="On the disk to be measured.")
def main(megabytes: int, rounds: int, folder: str) -> None:
    """Measure and print the table."""
    with tempfile.TemporaryDirectory(dir=folder) as name, open(_in_memory(megabytes), "rb") as file:
        source, target = Path(f"/proc/self/fd/{file.fileno()}"), Path(name) / "copy"
        ways: dict[str, Callable[[], object]] = {
            "copy_file": lambda: copy_file(source, target),
            "copyfile, fsync": lambda: _copyfile(source, target, hashed=False),
            "copyfile, fsync, sha256": lambda: _copyfile(source, target, hashed=True),
            "dd oflag=direct, fsync": lambda: _dd(file.fileno(), target),
        }
        seconds: dict[str, list[float]] = {way: [] for way in ways}
        for _ in range(rounds):
            for way, run in ways.items():
                started = time.perf_counter()
                run()
                seconds[way].append(time.perf_counter() - started)
                assert checksum(target) == checksum(source)
                target.unlink()
    print(f"{megabytes} MiB, {rounds} rounds, seconds")
    print(f"{'':26}{'median':>8}{'least':>8}{'ratio':>8}")
    for way, measured in seconds.items():
        ratio = statistics.median(
            m / own for own, m in zip(seconds["copy_file"], measured, strict=True)
        )
        print(f"{way:26}{statistics.median(measured):8.2f}{min(measured):8.2f}{ratio:8.2f}")


def _in_memory(megabytes: int) -> int:
    descriptor = os.memfd_create("source")
    piece = os.urandom(1 << 20)
    for _ in range(megabytes):
        os.write(descriptor, piece)
    return descriptor


def _copyfile(source: Path, target: Path, *, hashed: bool) -> None:
    shutil.copyfile(source, target)
    with target.open("rb") as file:
        os.fsync(file.fileno())
        if hashed:
            hashlib.file_digest(file, "sha256")


def _dd(descriptor: int, target: Path) -> None:
    command = ["dd", f"if=/proc/self/fd/{descriptor}", f"of={target}", "bs=8M"]
    subprocess.run(
        [*command, "oflag=direct", "conv=fsync", "status=none"], check=True, pass_fds=[descriptor]
    )


if __name__ == "__main__":
    main()
