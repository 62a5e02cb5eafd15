"""What the autopatch costs.

    python benchmarks/autopatch.py [--rounds 5]

At an interpreter's start without `LATTICE_AUTOPATCH`; and in each step of a script whose steps take
about 1 and 10 ms, run as it is and patched in turns. A step's time is the median of a process; what
is printed is the median over the rounds, and the spread.
"""

import argparse
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
for epoch in range(epochs):
    total = 0.0
    for i, (x,) in enumerate(loader):
        begun = time.perf_counter()
        optimizer.zero_grad()
        loss = model(x).square().mean()
        loss.backward()
        optimizer.step()
        total += loss.item()
        if i % 50 == 0:
            history.append(total)
        times.append(time.perf_counter() - begun)
print(statistics.median(times[10:]))
"""
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
            for number in range(rounds):
                for patched in (False, True):
                    environment = dict(plain)
                    if patched:
                        environment |= {
                            "LATTICE_AUTOPATCH": "torch",
                            "LATTICE_CHECKPOINT_TYPE": "local",
                            "LATTICE_CHECKPOINT_CONFIG": f"root={folder}/{size[0]}-{number}",
                        }
                    words = [sys.executable, str(script), *map(str, size)]
                    done = subprocess.run(
                        words, env=environment, capture_output=True, text=True, check=True
                    )
                    steps[patched].append(float(done.stdout.split()[-1]) * 1e6)
            before, after = (statistics.median(steps[each]) for each in (False, True))
            differences = [b - a for a, b in zip(steps[False], steps[True], strict=True)]
            print(
                f"step of {name}: {before:.0f} µs unpatched, {after:.0f} µs patched; difference "
                f"{statistics.median(differences):+.1f} µs "
                f"({min(differences):+.1f} to {max(differences):+.1f})"
            )


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
