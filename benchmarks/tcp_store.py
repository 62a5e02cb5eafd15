"""The TCP store against a raw socket: put and get of one file on loopback, both ends in memory.

    python benchmarks/tcp_store.py --megabytes 500 --rounds 7

In every round each way runs once, in turn: a raw socket (recv and write, sendfile), the service
without checksums, and the store as it is used, with a checksum at both ends, fsync and commit. The
medians of the rounds' ratios to the raw socket are printed. Targets: 0.85 without, 0.60 with.
"""

import os
import secrets
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import click

from curitorch.external.checksum import checksum
from curitorch.external.stores.tcp import wire
from curitorch.external.stores.testing.running_service import RunningService

BARE = secrets.token_hex(16)
RECEIVE = """
import os, socket, sys
listening = socket.create_server(("127.0.0.1", 0))
print(listening.getsockname()[1], flush=True)
buffer = memoryview(bytearray(1 << 20))
while True:
    connection, _ = listening.accept()
    with connection, open(sys.argv[1], "wb", buffering=0) as file:
        while count := connection.recv_into(buffer):
            file.write(buffer[:count])
        connection.sendall(b"k")
"""
SEND = """
import socket, sys
listening = socket.create_server(("127.0.0.1", 0))
print(listening.getsockname()[1], flush=True)
while True:
    connection, _ = listening.accept()
    with connection, open(sys.argv[1], "rb") as file:
        connection.sendfile(file)
"""


@click.command()
@click.option("--megabytes", default=500, show_default=True)
@click.option("--rounds", default=7, show_default=True)
@click.option("--folder", default="/dev/shm", show_default=True, help="Memory, not a disk.")
def main(megabytes: int, rounds: int, folder: str) -> None:
    """Measure and print the table."""
    with tempfile.TemporaryDirectory(dir=folder) as name:
        here = Path(name)
        source = here / "source"
        source.write_bytes(os.urandom(1 << 20) * megabytes)
        with RunningService(here) as service, service.store() as store:
            size = source.stat().st_size
            kept = store.put(0, {"model.ckpt": source})
            raw_in, raw_out = _start(RECEIVE, here / "raw"), _start(SEND, source)
            ways: dict[str, Callable[[], None]] = {
                "put: raw socket": lambda: _send(raw_in[1], source),
                "put: without checksum": lambda: _put_bare(service, source, size),
                "put: the store": lambda: (store.put(1, {"model.ckpt": source}), None)[1],
                "get: raw socket": lambda: _receive(raw_out[1], here / "got"),
                "get: without checksum": lambda: _get_bare(service, here / "got"),
                "get: the store": lambda: (store.fetch(kept, "model.ckpt", here / "fetched"), None)[
                    1
                ],
                "hash alone": lambda: (checksum(source), None)[1],
            }
            seconds: dict[str, list[float]] = {way: [] for way in ways}
            for _ in range(rounds):
                for way, run in ways.items():
                    (here / "got").unlink(missing_ok=True)
                    (here / "raw").unlink(missing_ok=True)
                    started = time.perf_counter()
                    run()
                    seconds[way].append(time.perf_counter() - started)
                    store.delete(1)
                    _drop_uploads(service)
            for process, _ in (raw_in, raw_out):
                process.kill()
                process.wait()
        _print_table(seconds, size)


def _start(program: str, path: Path) -> tuple[subprocess.Popen[str], int]:
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    return process, int(process.stdout.readline())


def _send(port: int, source: Path) -> None:
    with socket.create_connection(("127.0.0.1", port)) as connection, source.open("rb") as file:
        connection.sendfile(file)
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(1) == b"k"


def _receive(port: int, target: Path) -> None:
    buffer = memoryview(bytearray(1 << 20))
    with (
        socket.create_connection(("127.0.0.1", port)) as connection,
        target.open("wb", buffering=0) as file,
    ):
        while count := connection.recv_into(buffer):
            file.write(buffer[:count])


def _put_bare(service: RunningService, source: Path, size: int) -> None:
    """Send a file to the service, which hashes nothing as long as nothing is committed."""
    upload = BARE
    declared = b'{"step": 1, "files": {"model.ckpt": %d}}' % size
    assert service.ask("PUT", wire.uploads("bare", upload), declared)[0] == 201
    path = wire.uploads("bare", upload, "model.ckpt") + "?checksum=later"
    with socket.create_connection(("127.0.0.1", service.port)) as connection:
        connection.sendall(_head("PUT", path, service, size))
        with source.open("rb") as file:
            connection.sendfile(file)
        assert b" 200 " in connection.recv(65536)


def _drop_uploads(service: RunningService) -> None:
    assert service.ask("DELETE", wire.uploads("bare", BARE))[0] == 200


def _get_bare(service: RunningService, target: Path) -> None:
    buffer = memoryview(bytearray(1 << 20))
    path = wire.checkpoints("job", 0, "model.ckpt")
    with (
        socket.create_connection(("127.0.0.1", service.port)) as connection,
        target.open("wb", buffering=0) as file,
    ):
        connection.sendall(_head("GET", path, service, 0))
        head = b""
        while b"\r\n\r\n" not in head:
            head += connection.recv(4096)
        assert b" 200 " in head
        file.write(head.partition(b"\r\n\r\n")[2])
        while count := connection.recv_into(buffer):
            file.write(buffer[:count])


def _head(method: str, path: str, service: RunningService, length: int) -> bytes:
    token = service.token_file.read_text().strip()
    return (
        f"{method} {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n"
        f"Content-Length: {length}\r\nConnection: close\r\n\r\n"
    ).encode()


def _print_table(seconds: dict[str, list[float]], size: int) -> None:
    print(f"{size / 1e6:.0f} MB, median of {len(seconds['hash alone'])} rounds")
    print(f"{'':26}{'MB/s':>8}{'ratio':>8}")
    for way, measured in seconds.items():
        raw = seconds.get(f"{way.split(':')[0]}: raw socket", measured)
        ratio = statistics.median(r / m for r, m in zip(raw, measured, strict=True))
        print(f"{way:26}{size / 1e6 / statistics.median(measured):8.0f}{ratio:8.2f}")


if __name__ == "__main__":
    main()
