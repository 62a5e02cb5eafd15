"""What the autopatch costs.

    python benchmarks/autopatch.py [--rounds 3] [--stalls]

At an interpreter's start without `LATTICE_AUTOPATCH`; in each step of a script whose steps take
about 1 and 10 ms, patched and as it is written in turns, in one process and in processor time; and
how long a save stalls it, beside what the asynchronous writer's staging copy of the parameters and
gradients alone stalls the same loop: medians over the rounds, and the spread, of what passed and of
the thread's processor time.
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
clock, stood_still = time.monotonic, 0.0
time.monotonic = lambda: clock() - stood_still  # copies are taken by the time of patched segments

def measure(patched):
    global stood_still
    hooks.clear()
    DataLoader.__iter__ = ours[1].__wrapped__
    if not patched:
        begun = clock()
        took = as_written["segment"]()
        stood_still += clock() - begun
        return took
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
width, depth, epochs, every = map(int, sys.argv[1:5])
layers = [torch.nn.Linear(width, width) for _ in range(depth)]
model = torch.nn.Sequential(*layers)
optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)
loader = DataLoader(TensorDataset(torch.randn(800, width)), 8, shuffle=True)
saver = None
if sys.argv[5:]:  # by hand, what the autopatch copies
    from curitorch.external.stores import open_store
    from curitorch.external.stores.saver import Saver

    saver = Saver(open_store("local", f"root={sys.argv[5]}"), asynchronous=True)
passed, worked = [], []
begun = (time.perf_counter(), time.thread_time())
for epoch in range(epochs):
    for (x,) in loader:
        if saver and passed and len(passed) % every == 0:
            tensors = [each.detach() for each in model.parameters()]
            tensors += [each.grad for each in model.parameters()]
            saver.save(len(passed), {"shared": tensors})
        now = (time.perf_counter(), time.thread_time())
        passed.append(now[0] - begun[0])
        worked.append(now[1] - begun[1])
        begun = now
        optimizer.zero_grad()
        model(x).square().mean().backward()
        optimizer.step()
if saver:
    saver.close()
print(json.dumps([*zip(passed, worked)]))
"""
"""Times of steps, by what passed and of the thread; some save by hand, if a root is given."""
EVERY = 50  # steps, between two saves
SIZES = {"1 ms": (128, 8, 12), "10 ms": (512, 12, 6)}
PAIRS = {  # and the steps of each segment: some with a copy in memory or two, a second long
    "1 ms": {"atexit_saving=disabled": (150, 50), "atexit_saving=enabled": (40, 800)},
    "10 ms": {"atexit_saving=disabled": (60, 20), "atexit_saving=enabled": (40, 100)},
}


def main() -> None:
    """Print what a start, a step and a save cost."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--stalls", action="store_true", help="measure only how long saves stall")
    options = parser.parse_args()
    plain = {name: value for name, value in os.environ.items() if not name.startswith("LATTICE_")}
    plain["OMP_NUM_THREADS"] = "1"
    if not options.stalls:
        print("the line at an interpreter's start, variable not set:", at_start(plain))
    for name, (width, depth, _) in SIZES.items():
        with tempfile.TemporaryDirectory() as folder:
            for config, pairs in () if options.stalls else PAIRS[name].items():
                print_steps(f"{name}, {config}", [width, depth, *pairs], Path(folder), plain)
            print_stalls(SIZES[name], Path(folder), plain, options.rounds)


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
    assumed. With `atexit_saving` the copies in memory are in it, without it is bookkeeping alone.
    """
    script = folder / "paired.py"
    script.write_text(PAIRED)
    words = [str(script), *map(str, size)]
    config = f"root={folder}/paired-{len(list(folder.iterdir()))},{name.rpartition(' ')[2]}"
    pairs = json.loads(run(words, patched(plain, config)))[5:]
    more = sorted((after - before) * 1e6 for before, after in pairs)
    step = statistics.median(before for before, _ in pairs) * 1e6
    apart = round(0.98 * math.sqrt(len(more)))
    low, high = more[len(more) // 2 - apart], more[len(more) // 2 + apart]
    middle = statistics.median(more)
    print(
        f"step of {name}: {step:.0f} µs of processor time unpatched; patched {middle:+.1f} µs "
        f"(95 %: {low:+.1f} to {high:+.1f}), which is {middle / step:+.2%} ({low / step:+.2%} to "
        f"{high / step:+.2%}), of {len(more)} pairs"
    )


def print_stalls(
    size: tuple[int, int, int], folder: Path, plain: dict[str, str], rounds: int
) -> None:
    """Print how much longer the steps are that save, beside those that only copy."""
    script = folder / "script.py"
    script.write_text(SCRIPT)
    words = [str(script), *map(str, size), str(EVERY)]
    stalls: list[list[float]] = []
    staging: list[list[float]] = []
    for number in range(rounds):
        config = (
            f"root={folder}/{number},periodic_saving=enabled,periodic_saving_interval={EVERY}steps"
        )
        stalls.append(stall_of(run(words, patched(plain, config))))
        staging.append(stall_of(run([*words, f"{folder}/by-hand-{number}"], plain)))
    for kind, stall, copy in zip(
        ("", " of processor time"),
        zip(*stalls, strict=True),
        zip(*staging, strict=True),
        strict=True,
    ):
        print(
            f"  a save stalls it by {statistics.median(stall) * 1e3:.2f} ms{kind} "
            f"({min(stall) * 1e3:.2f} to {max(stall) * 1e3:.2f}); the staging copy of its "
            f"parameters and gradients, by hand, by {statistics.median(copy) * 1e3:.2f} ms "
            f"({min(copy) * 1e3:.2f} to {max(copy) * 1e3:.2f})"
        )


def stall_of(printed: str) -> list[float]:
    """Return how much longer the steps are that save, by what passed and of the thread."""
    times = json.loads(printed)
    saves = times[2 * EVERY :: EVERY]  # the first one makes a process
    return [save - step for save, step in zip(medians(saves), medians(times[10:]), strict=True)]


def medians(rows: list[list[float]]) -> list[float]:
    """Return the median of each column."""
    return [statistics.median(column) for column in zip(*rows, strict=True)]


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
