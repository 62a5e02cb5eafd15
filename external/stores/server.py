"""The TCP store's service.

python -m curitorch.external.stores.server --root /data/ckpt --token-file token --port 7070

It listens on this machine only unless --host says otherwise, and then wants TLS. When it is ready
it prints one line, its address. SIGTERM lets uploads under way finish; a second one does not.
"""

import asyncio
import logging
import signal
import ssl
import sys
from pathlib import Path

import click
from filelock import FileLock, Timeout

from .byte_count import parse_bytes
from .retention import Retention

try:
    from .service.application import Service
    from .service.incoming import Pace
    from .service.jobs import Limits
    from .service.listener import Listener
    from .service.tokens import BadTokenFile, TokenFile
except ModuleNotFoundError as error:
    if error.name != "aiohttp":
        raise
    sys.exit('The service of the TCP store needs aiohttp: pip install "curitorch[tcp]".')

LOOPBACK = {"127.0.0.1", "::1", "localhost"}
_FILE = click.Path(path_type=Path, dir_okay=False)


def _bytes(value: str) -> int:
    try:
        return parse_bytes(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


@click.command()
@click.option(
    "--root",
    required=True,
    type=click.Path(path_type=Path, file_okay=False),
    help="Where checkpoints go, a folder per job; it is made.",
)
@click.option("--token-file", required=True, type=_FILE, help="Who may come in; a token per line.")
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option("--port", default=0, show_default=True, help="0 takes one that is free.")
@click.option("--tls-cert", type=_FILE, help="The certificate, with its chain, in PEM.")
@click.option("--tls-key", type=_FILE, help="The certificate's key in PEM, if it is elsewhere.")
@click.option("--insecure", is_flag=True, help="Listen on a network without TLS.")
@click.option("--quota", type=_bytes, metavar="BYTES", help="What each job may use, e.g. 200G.")
@click.option("--max-bytes", type=_bytes, metavar="BYTES", help="The largest file, e.g. 20G.")
@click.option("--keep", default=0, help="Keep the newest N checkpoints of a job; 0 keeps all.")
@click.option("--keep-every", type=click.IntRange(1), help="Besides, each step that N divides.")
@click.option("--lease-seconds", default=60.0, show_default=True, help="Without being renewed.")
@click.option("--upload-seconds", default=3600.0, show_default=True, help="Until an idle one goes.")
@click.option("--slowest", default=1024, show_default=True, help="Bytes per second of a client.")
@click.option("--body-seconds", default=20.0, show_default=True, help="... averaged over so long.")
@click.option("--idle-seconds", default=15.0, show_default=True, help="... of a request's header.")
@click.option("--connections", default=256, show_default=True, help="The most at one time.")
@click.option("--grace", default=30.0, show_default=True, help="Seconds to finish at SIGTERM.")
def main(
    root: Path,
    token_file: Path,
    host: str,
    port: int,
    tls_cert: Path | None,
    tls_key: Path | None,
    insecure: bool,
    quota: int | None,
    max_bytes: int | None,
    keep: int,
    keep_every: int | None,
    lease_seconds: float,
    upload_seconds: float,
    slowest: int,
    body_seconds: float,
    idle_seconds: float,
    connections: int,
    grace: float,
) -> None:
    """Keep the checkpoints of many jobs, for trainers on other machines."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    if host not in LOOPBACK and tls_cert is None and not insecure:
        raise click.UsageError(
            f"--host {host} without TLS would send tokens and checkpoints in the clear. Give "
            "--tls-cert and --tls-key, or --insecure if the network is private."
        )
    root.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(root / ".service.lock", timeout=0):
            limits = Limits(
                quota=quota,
                most_bytes=max_bytes,
                retention=Retention(newest=keep, every=keep_every) if keep else None,
                lease_seconds=lease_seconds,
                upload_seconds=upload_seconds,
                pace=Pace(rate=max(1, slowest), seconds=body_seconds),
            )
            listener = Listener(
                Service(root, TokenFile(token_file), limits),
                host=host,
                port=port,
                tls=_tls(tls_cert, tls_key),
                most_connections=connections,
                idle_seconds=idle_seconds,
            )
            asyncio.run(_serve(listener, grace))
    except Timeout:
        raise click.ClickException(
            f"Another service uses '{root}'. Stop it first, or use another root."
        ) from None
    except (BadTokenFile, OSError, ssl.SSLError) as error:
        raise click.ClickException(str(error)) from error


async def _serve(listener: Listener, grace: float) -> None:
    stop, now = asyncio.Event(), asyncio.Event()

    def signalled() -> None:
        (now if stop.is_set() else stop).set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, signalled)
    await asyncio.to_thread(listener.service.tidy)
    address = await listener.start()
    click.echo(f"Listening on {address}")
    tidying = asyncio.create_task(listener.service.drop_idle_uploads())
    await stop.wait()
    tidying.cancel()
    stopping = asyncio.create_task(listener.stop(grace))
    at_once = asyncio.create_task(now.wait())
    await asyncio.wait({stopping, at_once}, return_when=asyncio.FIRST_COMPLETED)
    at_once.cancel()
    if not stopping.done():
        stopping.cancel()
        await asyncio.wait({stopping})


def _tls(certificate: Path | None, key: Path | None) -> ssl.SSLContext | None:
    if certificate is None:
        if key is not None:
            raise click.UsageError("--tls-key without --tls-cert. Give both.")
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    return context


if __name__ == "__main__":
    main()
