"""What the autopatch costs.

    python benchmarks/autopatch.py [--rounds 3]

At an interpreter's start without `LATTICE_AUTOPATCH`; in each step of a script whose steps take
about 1 and 10 ms, patched and as it is written in turns, in one process and in processor time; and
how long a save stalls it, beside what the asynchronous writer's staging copy of the same tensors
takes: medians over the rounds, and the spread.
"""

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PAIRED = """
import inspect, json, sys, time
import torch
from torch.optim import optimizer as optimizers
from torch.utils.data import DataLoader, TensorDataset

torch.set_num_threads(1)
torch.manual_seed(0)
width, depth, pairs, steps = map(int, sys.argv[1:])
layers = [torch.nn.Linear(width, width) for _ in range(depth)]
model = torch.nn.Sequential(*layers)
optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)
loader = DataLoader(TensorDataset(torch.randn(8 * steps, width)), 8, shuffle=True)
history = []

def segment():
    begun = time.process_time()
    for i, (x,) in enumerate(loader):
        optimizer.zero_grad()
        loss = model(x).square().mean()
        loss.backward()
        optimizer.step()
        if i % 5 == 0:
            history[:] = [*history, loss.item()][-9:]
    return (time.process_time() - begun) / len(loader)

as_written = dict(globals())
exec(inspect.getsource(segment), as_written)  # which nothing has rewritten
hooks = optimizers._global_optimizer_post_hooks
ours = (dict(hooks), DataLoader.__iter__)

def measure(patched):
    hooks.clear()
    DataLoader.__iter__ = ours[1].__wrapped__
    if not patched:
        return as_written["segment"]()
    hooks.update(ours[0])
    DataLoader.__iter__ = ours[1]
    return segment()

times = []
for pair in range(pairs):
    order = (pair % 2 == 0, pair % 2 == 1)
    found = dict((patched, measure(patched)) for patched in order)
    times.append([found[False], found[True]])
print(json.dumps(times))
"""
"""Segments, each an epoch of a loader, in turns as they are written and patched."""
SCRIPT = """
import json, sys, time
import torch
from torch.utils.data import DataLoader, TensorDataset

torch.set_num_threads(1)
torch.manual_seed(0)
width, depth, epochs = map(int, sys.argv[1:])
layers = [torch.nn.Linear(width, width) for _ in range(depth)]
model = torch.nn.Sequential(*layers)
optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)
loader = DataLoader(TensorDataset(torch.randn(800, width)), 8, shuffle=True)
times = []
begun = time.perf_counter()
for epoch in range(epochs):
    for (x,) in loader:
        now = time.perf_counter()
        times.append(now - begun)
        begun = now
        optimizer.zero_grad()
        model(x).square().mean().backward()
        optimizer.step()
print(json.dumps(times))
"""
STAGING = """
import statistics, sys, tempfile, time
import torch
from curitorch.external.stores import open_store
from curitorch.external.stores.saver import Saver

torch.set_num_threads(1)
width, depth, _ = map(int, sys.argv[1:])
model = torch.nn.Sequential(*[torch.nn.Linear(width, width) for _ in range(depth)])
times = []
with tempfile.TemporaryDirectory() as folder:
    saver = Saver(open_store("local", f"root={folder}"), asynchronous=True)
    for step in range(6):
        begun = time.perf_counter()
        saver.save(step, {"shared": [each.detach() for each in model.parameters()]})
        times.append(time.perf_counter() - begun)
        saver.wait()
    saver.close()
print(statistics.median(times[1:]))
"""
EVERY = 50  # steps, between two saves
SIZES = {"1 ms": (128, 8, 6), "10 ms": (512, 12, 2)}
PAIRS = {"1 ms": (150, 50), "10 ms": (50, 20)}  # and the steps of each segment


def main() -> None:
    """Print what a start, a step and a save cost."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    plain = {name: value for name, value in os.environ.items() if not name.startswith("LATTICE_")}
    plain["OMP_NUM_THREADS"] = "1"
    print("the line at an interpreter's start, variable not set:", at_start(plain))
    for name, (width, depth, _) in SIZES.items():
        with tempfile.TemporaryDirectory() as folder:
            print_steps(name, [width, depth, *PAIRS[name]], Path(folder), plain)
            print_stalls(SIZES[name], Path(folder), plain, rounds)


def patched(plain: dict[str, str], config: str) -> dict[str, str]:
    """Return the environment in which a script is saved."""
    return plain | {
        "LATTICE_AUTOPATCH": "torch",
        "LATTICE_CHECKPOINT_TYPE": "local",
        "LATTICE_CHECKPOINT_CONFIG": config,
    }


def print_steps(name: str, size: list[int], folder: Path, plain: dict[str, str]) -> None:
    """Print the processor time that a step takes more: of all threads, so that load matters less.

    The median of paired differences has a 95 % interval from their order: no distribution is
    assumed. The sum has the copies in memory in it, too.
    """
    script = folder / "paired.py"
    script.write_text(PAIRED)
    words = [str(script), *map(str, size)]
    pairs = json.loads(run(words, patched(plain, f"root={folder}/paired")))[5:]
    more = sorted((after - before) * 1e6 for before, after in pairs)
    step = statistics.median(before for before, _ in pairs) * 1e6
    apart = round(0.98 * math.sqrt(len(more)))
    low, high = more[len(more) // 2 - apart], more[len(more) // 2 + apart]
    middle = statistics.median(more)
    whole = sum(after for _, after in pairs) / sum(before for before, _ in pairs) - 1
    print(
        f"step of {name}: {step:.0f} µs of processor time unpatched; patched {middle:+.1f} µs "
        f"(95 %: {low:+.1f} to {high:+.1f}), which is {middle / step:+.2%} ({low / step:+.2%} to "
        f"{high / step:+.2%}); with copies in memory {whole:+.2%} in all, of {len(more)} pairs"
    )


def print_stalls(
    size: tuple[int, int, int], folder: Path, plain: dict[str, str], rounds: int
) -> None:
    """Print how much longer the steps are that save, beside what a copy takes."""
    script = folder / "script.py"
    script.write_text(SCRIPT)
    stalls: list[float] = []
    staging: list[float] = []
    for number in range(rounds):
        config = (
            f"root={folder}/{number},periodic_saving=enabled,periodic_saving_interval={EVERY}steps"
        )
        times = json.loads(run([str(script), *map(str, size)], patched(plain, config)))
        saves = times[2 * EVERY + 1 :: EVERY]  # the first ones make a process
        stalls.append((statistics.median(saves) - statistics.median(times[10:])) * 1e3)
        staging.append(float(run(["-c", STAGING, *map(str, size)], plain)) * 1e3)
    print(
        f"  a save stalls it by {statistics.median(stalls):.2f} ms "
        f"({min(stalls):.2f} to {max(stalls):.2f}); the staging copy of its parameters "
        f"takes {statistics.median(staging):.2f} ms"
    )


def run(words: list[str], environment: dict[str, str]) -> str:
    """Return the last line that a Python process prints."""
    done = subprocess.run(
        [sys.executable, *words], env=environment, capture_output=True, text=True, check=True
    )
    return done.stdout.splitlines()[-1]


def at_start(environment: dict[str, str]) -> str:
    """Return the time that the line in the .pth file takes."""
    code = (
        "import timeit, sysconfig, pathlib; "
        "line = pathlib.Path(sysconfig.get_paths()['purelib'], 'curitorch_autopatch.pth'); "
        "text = line.read_text(); code = compile(text, 'pth', 'exec'); "
        "print(timeit.timeit(lambda: exec(code), number=1000) / 1000 * 1e6)"
    )
    begun = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    whole = time.perf_counter() - begun
    return f"{float(done.stdout):.2f} µs (the interpreter itself {whole * 1e3:.0f} ms)"


if __name__ == "__main__":
    main()
