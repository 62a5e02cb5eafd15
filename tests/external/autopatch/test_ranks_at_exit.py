"""What ranks tell each other through torchrun's store, and that its threads end before all else."""

import atexit
import os
import subprocess
import sys
import threading
from datetime import timedelta
from types import SimpleNamespace

from torch.distributed import TCPStore

from curitorch.external.autopatch.ranks import Ranks

RANK = """
import atexit, threading
from types import SimpleNamespace

join = threading.Thread.join
threading.Thread.join = lambda thread, seconds=None: join(thread)  # for as long as it takes

atexit.register(lambda: print([each.name for each in threading.enumerate()]))  # after all others
atexit.register(lambda: ranks.propose(Wish.HOLD))  # as a clock does that still ticks
from curitorch.external.autopatch.ranks import Ranks
from curitorch.external.autopatch.wish import Wish

ranks = Ranks(SimpleNamespace(steps=3, due=False), 0, 2)
ranks.connect()
if PROPOSES:
    ranks.propose(Wish.HOLD)  # which the other rank never answers
    while not ranks.is_in_round:
        pass
"""


def test_no_thread_of_a_rank_is_left_as_its_interpreter_ends():
    launcher = TCPStore("127.0.0.1", 0, is_master=True, timeout=timedelta(seconds=60))
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(launcher.port)}
    for proposes in ("False", "True"):
        done = subprocess.run(
            [sys.executable, "-c", RANK.replace("PROPOSES", proposes)],
            env={**os.environ, **address, "TORCHELASTIC_RESTART_COUNT": proposes},
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stdout) == (0, "['MainThread']\n"), done.stderr


FORKS = """
import os, sys
from types import SimpleNamespace
from curitorch.external.autopatch.ranks import Ranks

ranks = Ranks(SimpleNamespace(steps=3, due=False), 0, 2)
ranks.connect()
child = os.fork()
if child == 0:
    sys.exit(5)  # as a script's own child that ends by itself, atexit and all
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
os._exit(0)
"""


def test_a_child_that_a_rank_forked_says_nothing_in_its_name_as_it_ends():
    launcher = TCPStore("127.0.0.1", 0, is_master=True, timeout=timedelta(seconds=60))
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(launcher.port)}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORKS],
        env={**os.environ, **address, "TORCHELASTIC_RESTART_COUNT": "0"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "5\n"), done.stderr
    assert not launcher.check(["curitorch-autopatch/0/proposal-0-0"])


def test_what_ranks_know_is_handed_to_the_first_one_unless_one_has_failed(monkeypatch):
    launcher = TCPStore("127.0.0.1", 0, is_master=True, timeout=timedelta(seconds=60))
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", str(launcher.port))
    first, second = (Ranks(SimpleNamespace(steps=3, due=False), rank, 2) for rank in (0, 1))
    for each in (first, second):
        each.connect()
    assert second.hand_over("at 3", b"2") == []
    assert first.hand_over("at 3", b"1") == [b"1", b"2"]
    heard = threading.Event()
    first.watch(heard.set)
    second.fail()
    assert heard.wait(60)
    assert first.hand_over("at 4", b"1") is None
    for each in (first, second):
        each._end_threads()
        atexit.unregister(each._end_threads)
