"""A real Slurm of two nodes on this machine, in one folder, for tests and benchmarks.

    python tests/stages/slurm/cluster.py up FOLDER      prints: export SLURM_CONF=FOLDER/slurm.conf
    python tests/stages/slurm/cluster.py down FOLDER

It needs root and the packages that `make slurm` installs. All daemons listen on 127.0.0.1 alone,
with ports and a munge key of their own, so that several clusters can stand side by side; the names
of the nodes, n1 and n2, are known inside jobs only.
"""

import contextlib
import importlib.util
import itertools
import os
import platform
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil

_SPEC = importlib.util.spec_from_file_location(
    "slurm_accounting", Path(__file__).with_name("accounting.py")
)
accounting = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(accounting)

PROGRAMS = ("slurmctld", "slurmd", "munged", "unshare")
CPUS = 16  # each node claims so many, whatever the machine has: its jobs mostly wait
NODES = ("n1", "n2")
OWN = os.getpid() % 150  # of processes that were started together each has another one
_ports_of_this_process = itertools.cycle(range(10000 + OWN * 33, 10033 + OWN * 33))

CONF = """\
ClusterName=curitorch{number}
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser=root
SlurmdUser=root
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
SlurmdDebug=verbose
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
MailProg=/bin/true
SlurmdParameters=config_overrides
SchedulerParameters=sched_interval=2,bf_interval=2,batch_sched_delay=0,sched_min_interval=100000
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
SlurmdTimeout=300
MessageTimeout=60
KillWait=5
InactiveLimit=0
MinJobAge=300
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
FirstJobId={first}
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/filetxt
JobCompLoc={folder}/ended-jobs
{nodes}
PartitionName=main Nodes=n1,n2 Default=YES MaxTime=INFINITE PriorityTier=1 GraceTime=60 State=UP
PartitionName=high Nodes=n1,n2 MaxTime=INFINITE PriorityTier=10 PreemptMode=OFF State=UP
"""


def missing(*, accounts: bool = False) -> str | None:
    """Return why no cluster can be started here, or None; with `accounts`, none that keeps them."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "needs root and Linux, to start a Slurm of its own"
    absent = [name for name in PROGRAMS if shutil.which(name, path=_path()) is None]
    if absent and shutil.which("apt-get") is None:
        return f"needs root and apt, to install Slurm ({absent[0]} is not here)"
    if absent:
        return f"Slurm is not installed ({absent[0]} is not here): make slurm"
    private = ["unshare", "-m", "--propagation", "private", "true"]
    if subprocess.run(private, capture_output=True, check=False).returncode:
        return "cannot mount in a namespace of its own, where Slurm's nodes have their names"
    return accounting.missing(_path()) if accounts else None


def up(folder: Path, *, accounts: bool = False, **settings: object) -> dict[str, str]:
    """Start the daemons; returns the variables with which commands find this cluster.

    Args:
        folder: Where all of it lies, sockets too: a short path.
        accounts: Whether it keeps accounts of its jobs in a database.
        settings: Lines of slurm.conf that are to be others, such as `MinJobAge=2`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o755)
    ports = _ports(2 + len(NODES))
    host = platform.node().split(".")[0]
    nodes = [
        f"NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs={CPUS} "
        "RealMemory=8000 State=UNKNOWN"
        for name, port in zip(NODES, ports[2:], strict=True)
    ]
    first = 15000 + OWN * 100  # the job scripts' rendezvous ports come from it
    text = CONF.format(
        folder=folder, host=host, ports=ports, nodes="\n".join(nodes), first=first, number=first
    )
    if accounts:
        settings |= accounting.settings(folder, ports[1])
    for name, value in settings.items():
        text = re.sub(rf"^{name}=.*\n", "", text, flags=re.MULTILINE) + f"{name}={value}\n"
    (folder / "slurm.conf").write_text(text)
    (folder / "hosts").write_text(
        Path("/etc/hosts").read_text() + "".join(f"127.0.0.1 {name}\n" for name in NODES)
    )
    (folder / "state").mkdir()
    key = folder / "munge.key"
    key.write_bytes(secrets.token_bytes(128))
    key.chmod(0o600)
    environment = {**os.environ, "SLURM_CONF": str(folder / "slurm.conf"), "PATH": _path()}
    _start("munged", f"--key-file={key}", f"--socket={folder}/munge.socket", folder=folder)
    _wait(lambda: (folder / "munge.socket").exists(), "munged")
    if accounts:
        accounting.up(folder, host=host, port=ports[1], environment=environment)
    _run(["slurmctld"], environment)
    for name in NODES:
        start_node(folder, name)
    _wait(lambda: _idle(environment) == len(NODES), "two idle nodes")
    return {"SLURM_CONF": str(folder / "slurm.conf")}


def start_node(folder: Path, name: str) -> None:
    """Start the slurmd of one node."""
    environment = {**os.environ, "SLURM_CONF": str(folder / "slurm.conf"), "PATH": _path()}
    bind = f'mount --bind "{folder}/hosts" /etc/hosts && exec "$@"'
    private = ("unshare", "-m", "--propagation", "private", "sh", "-c", bind, "sh")
    _run([*private, "slurmd", "-N", name], environment)


def kill_node(folder: Path, name: str) -> None:
    """Kill the slurmd of a node, and all of its jobs' processes, as if its power failed."""
    os.kill(int((folder / f"slurmd-{name}.pid").read_text()), signal.SIGKILL)
    while _kill_jobs(folder, name):  # they may have started others meanwhile
        time.sleep(0.05)


def _kill_jobs(folder: Path, name: str) -> int:
    """Kill the processes of jobs on a node; returns how many there were."""
    its_own = {"SLURMD_NODENAME": name, "SLURM_CONF": str(folder / "slurm.conf")}
    killed = 0
    for process in psutil.process_iter():
        try:
            if its_own.items() <= process.environ().items():  # other clusters have such nodes, too
                for each in (process.parent(), process):
                    if each is not None and each.name() == "slurmstepd":
                        each.kill()
                process.kill()
                killed += 1
        except (psutil.Error, OSError):
            continue
    return killed


def down(folder: Path) -> None:
    """End the daemons, and what jobs left."""
    environment = {**os.environ, "SLURM_CONF": str(folder / "slurm.conf"), "PATH": _path()}
    subprocess.run(
        ["scancel", "--full", "--signal=KILL", "--user=root"], env=environment, check=False
    )
    subprocess.run(["scancel", "--user=root"], env=environment, check=False)
    time.sleep(0.5)
    nodes = [f"slurmd-{node}" for node in NODES]
    for names in ([*nodes, "slurmctld"], ["slurmdbd"], ["mariadbd", "munged"]):
        _end([folder / f"{name}.pid" for name in names])
    for node in NODES:
        _kill_jobs(folder, node)


def _start(program: str, *words: str, folder: Path) -> None:
    files = {name: f"--{name}-file={folder}/{program}.{name}" for name in ("pid", "log", "seed")}
    _run([program, "--force", *words, *files.values()], {**os.environ, "PATH": _path()})


def _run(words: list[str], environment: dict[str, str]) -> None:
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{words[0]} ended with {done.returncode}: {done.stderr or done.stdout}")


def _idle(environment: dict[str, str]) -> int:
    words = ["sinfo", "-h", "-N", "-p", "main", "-o", "%t"]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    return done.stdout.split().count("idle")


def _wait(until, what: str, seconds: float = 200.0) -> None:
    deadline = time.monotonic() + seconds
    while not until():
        if time.monotonic() > deadline:
            raise RuntimeError(f"No {what} within {seconds:g} s.")
        time.sleep(0.1)


def _end(pid_files: list[Path]) -> None:
    daemons = []
    for file in pid_files:
        with contextlib.suppress(OSError, ValueError, psutil.Error):  # it has ended
            daemons.append(psutil.Process(int(file.read_text())))
            daemons[-1].terminate()
    _, left = psutil.wait_procs(daemons, timeout=5)
    for daemon in left:
        with contextlib.suppress(psutil.Error):
            daemon.kill()


def _ports(count: int) -> list[int]:
    """Return free ports that no other worker's cluster takes, nor anybody who asks for any."""
    free = []
    for port in itertools.islice(_ports_of_this_process, 33):
        with socket.socket() as probe, contextlib.suppress(OSError):  # what an earlier run left
            probe.bind(("127.0.0.1", port))
            free.append(port)
        if len(free) == count:
            return free
    raise RuntimeError("There is no free port.")


def _path() -> str:
    return os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])


if __name__ == "__main__":
    action, place = sys.argv[1], Path(sys.argv[2]).resolve()
    if action == "up":
        print(*(f"export {name}={value}" for name, value in up(place).items()), sep="\n")
    else:
        down(place)
