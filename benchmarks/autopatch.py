"""What the autopatch costs.

    python benchmarks/autopatch.py [--rounds 5]

At an interpreter's start without `LATTICE_AUTOPATCH`; in each step of a script whose steps take
about 1 and 10 ms, run as it is and patched in turns; and how long a save stalls it, beside what the
asynchronous writer's staging copy of the same tensors takes. A step's time, from one iteration's
beginning to the next, is the median of a process; what is printed is the median over the rounds,
and the spread.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SCRIPT = """
import statistics, sys, time
import torch
from torch.utils.data import DataLoader, TensorDataset

torch.set_num_threads(1)
torch.manual_seed(0)
width, depth, epochs = map(int, sys.argv[1:])
layers = [torch.nn.Linear(width, width) for _ in range(depth)]
model = torch.nn.Sequential(*layers)
optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)
loader = DataLoader(TensorDataset(torch.randn(800, width)), 8, shuffle=True)
history, times = [], []
begun = time.perf_counter()
for epoch in range(epochs):
    total = 0.0
    for i, (x,) in enumerate(loader):
        now = time.perf_counter()
        times.append(now - begun)
        begun = now
        optimizer.zero_grad()
        loss = model(x).square().mean()
        loss.backward()
        optimizer.step()
        total += loss.item()
        if i % 50 == 0:
            history.append(total)
import json
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


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    plain = {name: value for name, value in os.environ.items() if not name.startswith("LATTICE_")}
    plain["OMP_NUM_THREADS"] = "1"
    print("the line at an interpreter's start, variable not set:", at_start(plain))
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder, "script.py")
        script.write_text(SCRIPT)
        for name, size in SIZES.items():
            steps: dict[bool, list[float]] = {False: [], True: []}
            stalls: list[float] = []
            staging: list[float] = []
            for number in range(rounds):
                root = f"root={folder}/{size[0]}-{number}"
                for patched, config in (
                    (False, ""),
                    (True, root),
                    (
                        True,
                        f"{root}-saved,periodic_saving=enabled,"
                        f"periodic_saving_interval={EVERY}steps",
                    ),
                ):
                    environment = dict(plain)
                    if patched:
                        environment |= {
                            "LATTICE_AUTOPATCH": "torch",
                            "LATTICE_CHECKPOINT_TYPE": "local",
                            "LATTICE_CHECKPOINT_CONFIG": config,
                        }
                    times = json.loads(run([str(script), *map(str, size)], environment))
                    middle = statistics.median(times[10:])
                    if "-saved" in config:
                        saves = times[2 * EVERY + 1 :: EVERY]  # the first ones make a process
                        stalls.append((statistics.median(saves) - middle) * 1e3)
                    else:
                        steps[patched].append(middle * 1e6)
                words = ["-c", STAGING, *map(str, size)]
                staging.append(float(run(words, plain)) * 1e3)
            before, after = (statistics.median(steps[each]) for each in (False, True))
            differences = [b - a for a, b in zip(steps[False], steps[True], strict=True)]
            print(
                f"step of {name}: {before:.0f} µs unpatched, {after:.0f} µs patched; difference "
                f"{statistics.median(differences):+.1f} µs "
                f"({min(differences):+.1f} to {max(differences):+.1f})"
            )
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
