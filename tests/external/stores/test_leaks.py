"""What is opened and closed again and again leaves nothing: descriptors, threads, processes."""

import gc
import os
import threading
import time
from collections import Counter

import psutil
import pytest
import torch

from curitorch.external.stores import AsyncCheckpointIO, VerifiedCheckpointIO, open_store

ROUNDS = 15
STATE = {"global_step": 1, "weights": torch.zeros(5000)}


def held():
    gc.collect()
    process = psutil.Process()
    names = Counter(thread.name for thread in threading.enumerate())
    return process.num_fds(), process.num_threads(), names, set(process.children())


def more(before):
    """What is held now and was not before; less may be, of earlier tests."""
    descriptors, threads, names, children = (
        now - then for now, then in zip(held(), before, strict=True)
    )
    return (max(0, descriptors), max(0, threads), names, children)


@pytest.mark.parametrize("kind", ["local", "spool", "tcp", "verified", "async", "deferred"])
def test_nothing_is_held_after_many_saves_and_opens(tmp_path, shared, kind):
    (tmp_path / "m").write_bytes(b"weights")
    recipes = {
        "local": ("local", f"root={tmp_path}/kept"),
        "spool": ("local", f"root={tmp_path}/kept,spool={tmp_path}/spool,spool_bytes=1GB"),
        "tcp": shared.recipe("leaks"),
    }
    plugins = {
        "verified": VerifiedCheckpointIO,
        "async": AsyncCheckpointIO,
        "deferred": lambda: AsyncCheckpointIO(deferred=True),
    }

    def once(step):
        if kind in recipes:
            with open_store(*recipes[kind]) as store, store.lease("me") as lease:
                store.put(step, {"m": tmp_path / "m"}, lease=lease)
                store.newest_valid()
        else:
            plugin = plugins[kind]()
            plugin.save_checkpoint(STATE, tmp_path / "x.ckpt")
            plugin.load_checkpoint(tmp_path / "x.ckpt", weights_only=True)
            plugin.teardown()

    for step in range(3):  # what stays for good is there afterwards
        once(step)
    before, shared_memory = held(), set(os.listdir("/dev/shm"))
    for step in range(3, 3 + ROUNDS):
        once(step)
    until = time.monotonic() + 60
    while any(left := more(before)) and time.monotonic() < until:
        time.sleep(0.05)  # the system's part of a thread ends after Python's
    assert not any(left)
    assert {n for n in os.listdir("/dev/shm") if "curitorch" in n} <= shared_memory
