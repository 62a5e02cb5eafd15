"""A real S3 server for tests: OpenStack Swift with s3api, from PyPI, on loopback.

It lives in a virtual environment of its own, `<sys.prefix>/swift-venv`, made on first use, which
takes ten seconds; starting takes two.
"""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import filelock
import pytest

from curitorch.external.stores.testing.held_port import hold_port

SWIFT = "swift==2.38.3"
ENVIRONMENT = Path(sys.prefix) / "swift-venv"

STORAGE = """\
[DEFAULT]
bind_ip = 127.0.0.1
bind_port = {port}
workers = 0
user = {user}
swift_dir = {etc}
devices = {devices}
mount_check = false
fallocate_reserve = 0
log_level = ERROR
[pipeline:main]
pipeline = {kind}-server
[app:{kind}-server]
use = egg:swift#{kind}
conn_timeout = 100
node_timeout = 100
container_update_timeout = 100
"""
"""Patient: an object is not in the listing that came too late for it, and nobody adds it later."""

PROXY = """\
[DEFAULT]
bind_ip = 127.0.0.1
bind_port = {port}
workers = 0
user = {user}
swift_dir = {etc}
log_level = ERROR
[pipeline:main]
pipeline = catch_errors cache listing_formats s3api tempauth bulk slo dlo versioned_writes
    proxy-server
[app:proxy-server]
use = egg:swift#proxy
conn_timeout = 100
node_timeout = 100
recoverable_node_timeout = 100
error_suppression_limit = 1000000
allow_account_management = true
account_autocreate = true
[filter:catch_errors]
use = egg:swift#catch_errors
[filter:cache]
use = egg:swift#memcache
memcache_servers = 127.0.0.1:1
[filter:listing_formats]
use = egg:swift#listing_formats
[filter:s3api]
use = egg:swift#s3api
s3_acl = false
min_segment_size = 1048576
location = us-east-1
max_bucket_listing = 20
[filter:tempauth]
use = egg:swift#tempauth
user_test_tester = testing .admin
[filter:bulk]
use = egg:swift#bulk
[filter:slo]
use = egg:swift#slo
[filter:dlo]
use = egg:swift#dlo
[filter:versioned_writes]
use = egg:swift#versioned_writes
allow_versioned_writes = true
allow_object_versioning = false
"""

RINGS = """\
import sys
from swift.common.ring import RingBuilder
for kind, port in zip(("account", "container", "object"), sys.argv[2:]):
    builder = RingBuilder(6, 1, 0)
    builder.add_dev({"id": 0, "region": 1, "zone": 1, "weight": 1, "ip": "127.0.0.1",
                     "port": int(port), "device": "d1"})
    builder.rebalance()
    builder.get_ring().save(f"{sys.argv[1]}/{kind}.ring.gz")
"""


@dataclass(frozen=True)
class SwiftServer:
    """A running server; `key` and `secret` are right, the addressing is by path."""

    port: int
    key: str = "test:tester"
    secret: str = "testing"
    region: str = "us-east-1"

    @property
    def endpoint_url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def credentials(self) -> dict[str, str]:
        return {
            "AWS_ACCESS_KEY_ID": self.key,
            "AWS_SECRET_ACCESS_KEY": self.secret,
            "AWS_DEFAULT_REGION": self.region,
        }


@contextlib.contextmanager
def running_swift() -> Iterator[SwiftServer]:
    """Start the server in an empty folder; stop it and remove the folder at the end."""
    environment = _environment()
    with tempfile.TemporaryDirectory(prefix="curitorch-swift-") as name:
        folder = Path(name)
        _check_xattrs(folder)
        (folder / "etc").mkdir()
        (folder / "srv" / "d1").mkdir(parents=True)
        kinds = ("account", "container", "object", "proxy")
        with contextlib.ExitStack() as stack:
            held = {kind: stack.enter_context(hold_port()) for kind in kinds}
            ports = {kind: port.getsockname()[1] for kind, port in held.items()}
            _configure(folder, ports)
            storage = [str(ports[kind]) for kind in kinds[:3]]
            ring = [environment / "bin" / "python", "-c", RINGS, folder / "etc", *storage]
            subprocess.run(ring, check=True, capture_output=True)
            processes = {}
            for kind in kinds:
                log = stack.enter_context((folder / f"{kind}.log").open("wb"))
                processes[kind] = subprocess.Popen(
                    [environment / "bin" / f"swift-{kind}-server", folder / "etc" / f"{kind}.conf"],
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
                stack.callback(_stop, processes[kind])
            for kind in kinds:
                _wait(kind, processes[kind], ports[kind], folder / f"{kind}.log")
            yield SwiftServer(ports["proxy"])


def _environment() -> Path:
    """Return the server's virtual environment, made first if need be; skip where it cannot be."""
    done = ENVIRONMENT / ".installed"
    with filelock.FileLock(f"{ENVIRONMENT}.lock"):
        if not done.exists() or done.read_text() != SWIFT:
            python = ENVIRONMENT / "bin" / "python"
            for command in (
                [sys.executable, "-m", "venv", "--clear", ENVIRONMENT],
                [python, "-m", "pip", "install", "-q", "--disable-pip-version-check", SWIFT],
            ):
                made = subprocess.run(command, capture_output=True, text=True)
                if made.returncode:
                    why = (made.stdout + made.stderr).strip()[-300:]
                    pytest.skip(f"no S3 server: {SWIFT} could not be installed: {why}")
            done.write_text(SWIFT)
    return ENVIRONMENT


def _check_xattrs(folder: Path) -> None:
    try:
        os.setxattr(folder, "user.curitorch", b"1")
    except OSError as error:
        pytest.skip(f"no S3 server: Swift needs extended attributes in '{folder.parent}' ({error})")


def _configure(folder: Path, ports: dict[str, int]) -> None:
    etc = folder / "etc"
    (etc / "swift.conf").write_text(
        "[swift-hash]\nswift_hash_path_suffix = curitorch-tests\n"
        "[storage-policy:0]\nname = default\ndefault = yes\n"
    )
    user = subprocess.run(["id", "-un"], check=True, capture_output=True, text=True).stdout.strip()
    for kind, port in ports.items():
        text = (PROXY if kind == "proxy" else STORAGE).format(
            port=port, kind=kind, user=user, etc=etc, devices=folder / "srv"
        )
        (etc / f"{kind}.conf").write_text(text)


def _wait(kind: str, process: "subprocess.Popen[bytes]", port: int, log: Path) -> None:
    """Wait until the server answers; anything that is HTTP counts."""
    end = time.monotonic() + 200
    while time.monotonic() < end:
        if process.poll() is not None:
            break
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/healthcheck", timeout=5).close()
        except urllib.error.HTTPError:
            return
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise RuntimeError(f"swift-{kind}-server did not come up: {log.read_text()[-2000:]}")


def _stop(process: "subprocess.Popen[bytes]") -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
