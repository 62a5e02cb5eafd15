"""What reporting a step costs: start_step, end_step and a metric of five values.

    python benchmarks/sdk.py [--steps 20000]

Side by side in one sitting, in turns: the SDK in managed mode, as under a stage; PeriFlow's way of
logging locally (json.dumps, then open, append and close for each call); TensorBoard's add_scalar
for each of the values, if it is installed. Each finds the processor's caches full of the others'
work, as between two steps of training. The goal: at most 20 µs in the median, managed.

The table has the time that passed, the processor time of the calling thread with what the clocks
take, and, per step, that of the other threads, which write (ours look for requests to save as
well, 20 times a second). On a machine with other work processor time says more than what passed.
"""

import argparse
import json
import os
import random
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

GOAL = 20.0  # µs
MANAGED = "curitorch, managed"
BOARD = "TensorBoard add_scalar"

Step = Callable[[int, dict[str, float]], None]


def main() -> None:
    """Print a table of medians and p99 in microseconds, and say whether the goal is met."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=20_000)
    steps = parser.parse_args().steps
    with tempfile.TemporaryDirectory() as folder:
        os.environ.update(CURITORCH_RUN_DIR=f"{folder}/run", CURITORCH_ATTEMPT="0")
        ways = {
            MANAGED: managed(),
            "PeriFlow's local way": periflow(Path(folder, "local.log")),
            **tensorboard(folder),
            "the clocks alone": lambda number, values: None,
        }
        taken = {name: [] for name in ways}
        worked = {name: [] for name in ways}
        before = of_threads()
        for step in range(steps):
            values = {name: random.random() for name in ("loss", "acc", "lr", "norm", "rate")}
            for name in random.sample(list(ways), len(ways)):
                work = time.thread_time()
                began = time.perf_counter()
                ways[name](step, values)
                taken[name].append(1e6 * (time.perf_counter() - began))
                worked[name].append(1e6 * (time.thread_time() - work))
        time.sleep(0.5)  # what waits is written
        beside = {
            name: 1e6 * (seconds - before[name]) / steps for name, seconds in of_threads().items()
        }
        print(
            f"{'':24}{'median':>10}{'p99':>10}{'processor':>12}{'threads':>10}   µs per step with "
            f"5 values, {steps} steps"
        )
        for name, times in taken.items():
            p99 = statistics.quantiles(times, n=100)[98]
            own = statistics.median(worked[name])
            print(
                f"{name:24}{statistics.median(times):10.1f}{p99:10.1f}{own:12.1f}"
                f"{beside.get(name, 0.0):10.1f}"
            )
        median = statistics.median(taken[MANAGED])
        print(f"goal of {GOAL:g} µs: {'met' if median <= GOAL else 'MISSED'}")
        from curitorch.external.sdk import api

        api.finish()


def of_threads() -> dict[str, float]:
    """Return the processor seconds that the threads of each way have had."""
    seconds = dict.fromkeys((MANAGED, BOARD), 0.0)
    for thread in threading.enumerate():
        if thread is not threading.main_thread() and thread.ident is not None:
            clock = time.pthread_getcpuclockid(thread.ident)
            seconds[MANAGED if thread.name.startswith("curitorch") else BOARD] += (
                time.clock_gettime(clock)
            )
    return seconds


def managed() -> Step:
    """Return a step of the SDK under a stage."""
    import curitorch.external.sdk as pf

    pf.init()

    def step(number: int, values: dict[str, float]) -> None:
        pf.start_step()
        pf.end_step()
        pf.metric(values)

    return step


def periflow(path: Path) -> Step:
    """Return a step as PeriFlow 0.1.2 does it locally: counting, and a line for the metric."""
    count = 0

    def step(number: int, values: dict[str, float]) -> None:
        nonlocal count
        count += 1
        with path.open("a") as file:
            file.write(json.dumps(values) + "\n")

    return step


def tensorboard(folder: str) -> dict[str, Step]:
    """Return a step with TensorBoard's writer, or nothing without it."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ModuleNotFoundError:
        print("TensorBoard is not installed; it is left out.")
        return {}
    writer = SummaryWriter(f"{folder}/board")

    def step(number: int, values: dict[str, float]) -> None:
        for name, value in values.items():
            writer.add_scalar(name, value, number)

    return {BOARD: step}


if __name__ == "__main__":
    main()
