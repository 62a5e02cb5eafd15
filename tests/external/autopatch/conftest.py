"""Scripts in processes of their own: as they are, patched, interrupted at a line of output."""

import difflib
import os
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pytest

SIGNALS_ITSELF = """
import os, sys, threading, time

def end():
    number = int(os.environ["SIGNAL_NUMBER"])
    if "SIGNAL_LAUNCHER" not in os.environ:
        os.kill(os.getpid(), number)
        return
    os.kill(os.getppid(), number)
    while not any("end_after_grace" in each.name for each in threading.enumerate()):
        time.sleep(0.01)  # until it has come from there

def end_later(seconds):
    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()

class Counting:
    def __init__(self, stream):
        self.stream, self.left = stream, int(os.environ["SIGNAL_AFTER"])

    def write(self, text):
        self.stream.write(text)
        before, self.left = self.left, self.left - text.count(chr(10))
        if before > 0 >= self.left:
            later = float(os.environ["SIGNAL_LATER"])
            end_later(later) if later else end()
        return len(text)

    def __getattr__(self, name):
        return getattr(self.stream, name)

sys.stdout = Counting(sys.stdout)
"""
"""A sitecustomize: the process sends itself a signal at a line of its output, whatever the load.

Or, with SIGNAL_LAUNCHER, its launcher, and waits until that one has passed it on.
"""

HOLDS_OFTEN = """
from wrapt import when_imported

@when_imported("curitorch.external.autopatch.held_state")
def hold_often(module):
    module._LEAST = module._SHARE = 0
"""
"""A sitecustomize: copies in memory come soon, though they go by what the first one has cost."""

SCRIPTS = Path(__file__).parent / "scripts"


@dataclass(frozen=True)
class Done:
    """What a process printed, on standard output and error, and how it ended."""

    out: str
    err: str
    status: int

    @property
    def lines(self):
        return self.out.splitlines()


class Runner:
    """Runs scripts in `folder`, patched with a store there."""

    scripts = str(SCRIPTS)
    holds_often = HOLDS_OFTEN
    saves_every_step = ",periodic_saving=enabled,periodic_saving_interval=1steps"

    def __init__(self, folder):
        self.folder = folder
        self.store = folder / "store"

    def environment(self, *, config="", patched=True, **more):
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith("LATTICE_")
        }
        environment |= {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
        if patched:
            environment |= {
                "LATTICE_AUTOPATCH": "torch",
                "LATTICE_CHECKPOINT_TYPE": "local",
                "LATTICE_CHECKPOINT_CONFIG": f'root="{self.store}"{config}',
            }
        return environment | more

    def command(self, script):
        words = script if isinstance(script, list) else script.split()
        return [sys.executable, str(SCRIPTS / words[0]), *words[1:]]

    def under_torchrun(self, script, ranks, *words):
        """Return the command of a script in so many ranks."""
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
        return [*torchrun, f"--nproc-per-node={ranks}", self.command(script)[1], *words]

    def start(self, script, *, command=None, out=subprocess.PIPE, err=subprocess.PIPE, **options):
        return subprocess.Popen(
            command or self.command(script),
            cwd=self.folder,
            env=self.environment(**options),
            stdout=out,
            stderr=err,
            text=True,
        )

    def run(self, script, *, site="", **options) -> Done:
        """Run a script to its end, with `site` as its sitecustomize."""
        if site:
            folder = self.folder / "sitecustomize"
            folder.mkdir(exist_ok=True)
            (folder / "sitecustomize.py").write_text(site)
            before = options.pop("PYTHONPATH", os.environ.get("PYTHONPATH", ""))
            options["PYTHONPATH"] = os.pathsep.join([str(folder), before])
        # Not to pipes: a worker whose process is killed as it starts lives on, and holds them open.
        with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
            status = self.start(script, out=out, err=err, **options).wait()
            out.seek(0)
            err.seek(0)
            return Done(out.read(), err.read(), status)

    def interrupt(self, script, *, after, by=signal.SIGTERM, later=0.0, site="", **options) -> Done:
        """Run a script that gets a signal as it has printed `after` lines; it may print more.

        `later` is how many seconds after that line, anywhere in what it does then.
        """
        options |= {"SIGNAL_AFTER": str(after), "SIGNAL_NUMBER": str(int(by))}
        return self.run(script, site=SIGNALS_ITSELF + site, SIGNAL_LATER=str(later), **options)

    def carries(self, script, *, at, by=signal.SIGTERM, by_status=None, **options):
        """The script prints the same, unpatched, patched, and interrupted after lines `at`.

        `by_status` is how an interrupted process ends, if not by the signal itself.
        """
        plain = self.run(script, patched=False)
        assert plain.status == 0, plain.err
        whole = Runner(self.folder / "whole")
        whole.folder.mkdir()
        patched = whole.run(script, **options)
        assert (patched.status, patched.out) == (0, plain.out), patched.err
        printed, errors, seen = "", "", 0
        for line in at:
            assert line > seen, errors
            part = self.interrupt(script, after=line - seen, by=by, **options)
            assert part.status == (by_status or -by), part.err + part.out
            printed, errors = printed + part.out, errors + part.err
            seen = len(printed.splitlines())
        rest = self.run(script, **options)
        assert rest.status == 0, errors + rest.err
        assert difference(plain.lines, (printed + rest.out).splitlines()) == "", errors + rest.err
        return errors + rest.err


def difference(expected, found):
    return "\n".join(difflib.unified_diff(expected, found, lineterm="", n=1))


@pytest.fixture
def runner(tmp_path):
    return Runner(tmp_path)


@pytest.fixture(scope="session")
def make_runner():
    return Runner
