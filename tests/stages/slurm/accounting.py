"""Slurm's accounting for a cluster of the tests: slurmdbd, and a MariaDB that only it can reach.

MariaDB listens on a socket in the cluster's folder alone, and asks for no password.
"""

import shutil
import socket
import subprocess
import time
from pathlib import Path

PROGRAMS = ("slurmdbd", "mariadbd")
TABLES = Path("/usr/share/mysql/mysql_system_tables.sql")

CONF = """\
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
DbdHost={host}
DbdAddr=127.0.0.1
DbdPort={port}
SlurmUser=root
StorageType=accounting_storage/mysql
StorageHost=localhost
StorageUser=root
LogFile={folder}/slurmdbd.log
PidFile={folder}/slurmdbd.pid
"""


def missing(path: str) -> str | None:
    """Return why there can be no accounting here, or None."""
    absent = [name for name in PROGRAMS if shutil.which(name, path=path) is None]
    if not absent:
        return None
    return f"Slurm's accounting is not installed ({absent[0]} is not here): make slurm"


def settings(folder: Path, port: int) -> dict[str, object]:
    """Return the lines of slurm.conf with which the cluster in `folder` keeps accounts."""
    return {
        "AccountingStorageType": "accounting_storage/slurmdbd",
        "AccountingStorageHost": "127.0.0.1",
        "AccountingStoragePort": port,
        "AccountingStoragePass": folder / "munge.socket",
    }


def up(folder: Path, *, host: str, port: int, environment: dict[str, str]) -> None:
    """Start both; munged and slurm.conf are there, slurmctld is not yet."""
    data = folder / "data"
    data.mkdir()
    store = ["mariadbd", "--no-defaults", "--user=root", f"--datadir={data}", "--skip-networking"]
    store += ["--innodb-buffer-pool-size=16M", "--innodb-log-file-size=4M"]
    store += ["--innodb-flush-log-at-trx-commit=0", f"--log-error={folder}/mariadbd.log"]
    tables = f"create database mysql;\nuse mysql;\n{TABLES.read_text()}"
    subprocess.run(
        [*store, "--bootstrap"], input=tables, text=True, env=environment, check=True, timeout=200
    )
    served = [f"--socket={folder}/mariadb.socket", f"--pid-file={folder}/mariadbd.pid"]
    words = ["sh", "-c", '"$@" &', "sh", *store, *served, "--skip-grant-tables"]
    subprocess.run(words, env=environment, check=True)
    _wait(lambda: (folder / "mariadb.socket").exists())
    conf = folder / "slurmdbd.conf"
    conf.write_text(CONF.format(folder=folder, host=host, port=port))
    conf.chmod(0o600)  # slurmdbd asks for it
    environment = {**environment, "MYSQL_UNIX_PORT": f"{folder}/mariadb.socket"}
    subprocess.run(["slurmdbd"], env=environment, check=True)
    _wait(lambda: _listens(port))


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _wait(until, seconds: float = 200.0) -> None:
    deadline = time.monotonic() + seconds
    while not until():
        if time.monotonic() > deadline:
            raise RuntimeError(f"No accounting within {seconds:g} s.")
        time.sleep(0.1)
