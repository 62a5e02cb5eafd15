"""Lean fits with FSDP2 in each of several processes that something happens to: FOLDER CASE…

Each case trains world_fits's "clipping" in a store of its name, and saves after steps 4 and 8 and
at the end, 12; "NAME=CASE" does so in the store NAME. It goes on from what is there.
"""

import os
import signal
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import torch
import world_fits as fits
from torch.distributed.checkpoint.filesystem import FileSystemWriter

from curitorch.external.adapter import meeting, sharded, talk
from curitorch.external.adapter.sharded_saving import PartsSaver
from curitorch.external.groups import groups_left
from curitorch.external.stores import LocalStore
from curitorch.external.stores.saver import Saver

fits.warnings = SimpleNamespace(filterwarnings=lambda *arguments: None)  # they are looked for
talk.SECONDS = 0.0  # at each step, so that no clock decides
RANK = int(os.environ["RANK"])


def fit(folder, **options):
    options = {"exact": "rank", "strategy": "fsdp2", "every": 4, **options}
    found = fits.fit(fits.CASES["clipping"], source=folder, target=folder, **options)
    if RANK == 0:
        torch.save(found, folder / "outcome.pt")
    return found


def at_second_write(act):
    """Let rank 1 do something when it writes parts the second time, for step 8."""
    write, calls = FileSystemWriter.write_data, []

    def patched(*arguments):
        calls.append(threading.current_thread())
        if RANK == 1 and len(calls) == 2:
            act()
        return write(*arguments)

    FileSystemWriter.write_data = patched
    return calls


def goes_on(folder):
    fit(folder)


def after_each_batch(act):
    """Let `act(net)` run behind the module's own hook."""
    hook = fits.Net.on_train_batch_end

    def on_train_batch_end(net, *arguments):
        hook(net, *arguments)
        act(net)

    fits.Net.on_train_batch_end = on_train_batch_end


def slow(folder):
    """Write step 8 when a later step is done: training has to go on for that."""
    later = threading.Event()
    calls = at_second_write(later.wait)
    after_each_batch(lambda net: later.set() if net.global_step == 10 else None)
    fit(folder, asynchronous=True)
    assert len(calls) == 2
    assert threading.main_thread() not in calls


def stopping(folder):
    """Ask for a stop while step 8 is being written: that ends, and the stop is saved."""
    asked = threading.Event()
    at_second_write(asked.wait)

    def stop(net):
        if net.global_step == 9:
            net.stop.reason = "SIGTERM"
            asked.set()

    after_each_batch(stop)
    found = fit(folder, asynchronous=True)
    assert 9 <= found["step"] < 12, found["step"]
    assert found["step"] == LocalStore(folder).list()[-1].step


def full():
    raise OSError(28, "No space left on device")


def fails(folder, **options):
    meeting.SECONDS = 100.0  # all come, some perhaps late
    try:
        fit(folder, **options)
    except (OSError, RuntimeError) as error:
        print(f"rank {RANK} found: {error}", flush=True)
    else:
        raise AssertionError("it did not fail")


def failing(folder):
    """Let the disk of rank 1 be full for step 8."""
    at_second_write(full)
    fails(folder)


def failing_in_the_background(folder):
    at_second_write(full)
    fails(folder, asynchronous=True)


def failing_at_the_end(folder):
    """Let rank 0 alone fail, which puts into the store what all have written."""

    def put(store, step, *arguments, **options):
        return full() if step == 8 else before(store, step, *arguments, **options)

    before, sharded.put_shards = sharded.put_shards, put
    try:
        fails(folder, asynchronous=True)
    finally:
        sharded.put_shards = before


def in_turn(folder):
    """Let step 8 be put only where somebody waits for it; see what is there when 12 is begun."""
    waited, there = threading.Event(), []

    def put(store, step, *arguments, **options):
        if step == 8:
            waited.wait()
        return before[0](store, step, *arguments, **options)

    def wait(saver):
        waited.set()
        before[1](saver)

    def save(saver, step, *arguments, **options):
        there.append((step, [each.step for each in LocalStore(folder).list()]))
        before[2](saver, step, *arguments, **options)
        waited.set()  # so that nobody waits for ever

    before = sharded.put_shards, PartsSaver.wait, Saver.save
    sharded.put_shards, PartsSaver.wait, Saver.save = put, wait, save
    fit(folder, asynchronous=True)
    sharded.put_shards, PartsSaver.wait, Saver.save = before
    assert there == ([(12, [4, 8])] if RANK == 0 else []), there


def killed(folder):
    """Die while step 8 is written."""
    at_second_write(lambda: os.kill(os.getpid(), signal.SIGKILL))
    fit(folder, asynchronous=True)


def dies(folder):
    """Let rank 1 die alone in a step; torchrun leaves the other one 30 seconds."""
    meeting.SECONDS = 1.0

    def die(net):
        if net.global_step == 7 and RANK == 1:
            os.kill(os.getpid(), signal.SIGKILL)

    after_each_batch(die)
    fit(folder)


def last_validation(folder):
    """Stop in the validation behind the last step, which is saved in parts then, and go on."""

    def on_validation_start(net):
        if net.global_step == 12:
            net.stop.reason = "SIGTERM"

    fits.Net.on_validation_start = on_validation_start
    fit(folder)
    del fits.Net.on_validation_start
    fit(folder)


def main(folder, *names):
    torch.set_num_threads(1)
    for name in names:
        place, _, case = name.partition("=")
        write, hook = FileSystemWriter.write_data, fits.Net.on_train_batch_end
        globals()[case or place](Path(folder) / place)
        FileSystemWriter.write_data, fits.Net.on_train_batch_end = write, hook
        torch.distributed.barrier()


if __name__ == "__main__":
    with groups_left():
        main(*sys.argv[1:])
