"""What a training step costs beyond the model: LeanTrainer, a raw PyTorch loop and Lightning.

    python benchmarks/loop.py [--rounds 5] [--quick] [--only small]

All modes run in one process, in turns and in random order, on the same model and data, with one
thread. A step lasts from one `training_step` to the next; of a run the median and the 10th
percentile (the step that was least disturbed) are taken, and the median of the processor time of
its thread, which a busy machine disturbs least; each is divided by the raw loop's of the same
round. Printed are the medians over the rounds, and whether a goal is met; the first round warms up.

The data of "small" and "mid" are a TensorDataset, whose rows LeanTrainer takes at once for a batch
where torch's loader takes and stacks them one by one; and in all cases it leaves out what torch's
optimizers tell profilers and hooks that are not there. So it may be faster than raw. What seeding,
hooks, logging and the loop cost by themselves is to be seen at "pre-batched" against "raw bare".

    raw           for batch in loader: loss, zero_grad, backward, step
    raw bare      the same, but what LeanTrainer leaves out of an optimizer's calls is left out, too
    lean          LeanTrainer, nothing overridden, nothing logged
    lean+log      six hooks overridden and self.log at each step
    lean+run      the same with a store and a journal, as our trainer runs it
    trainer       lightning.Trainer without progress bar, logger and checkpoints
    trainer+log   the same with the hooks and self.log
    world of N    exact="world", results that do not depend on the number of processes: N grains
                  a batch, that up to N processes can share
    raw in N      the raw loop with as small parts of a batch, their gradients added: the same
                  arithmetic
"""

import argparse
import functools
import itertools
import logging
import random
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from curitorch.external.adapter import LeanTrainer
from curitorch.external.adapter.bare_optimizer import BareOptimizer

Batch = tuple[Tensor, Tensor]
Times = tuple[float, float, float]
KINDS = ("median", "p10", "processor")


@dataclass(frozen=True)
class Goal:
    """What a mode shall cost at most.

    Attributes:
        limit: Times as much as the base, or, with `over`, so many microseconds more.
        base: The mode to compare with.
        kind: Of the times, one of KINDS.
    """

    limit: float
    base: str = "raw"
    over: bool = False
    kind: str = "processor"

    def verdict(self, taken: dict[str, list[Times]], mode: str) -> str:
        """Return the goal, what was measured, and whether it is met."""
        _, ratio, over = compared(taken, mode, self.base, KINDS.index(self.kind))
        found = over if self.over else ratio
        limit = f"{self.limit:.0f} µs over" if self.over else f"{self.limit:.2f} of"
        word = "met" if found <= self.limit else f"MISSED: {found:.3g}"
        return f"≤ {limit} {self.base} by {self.kind}: {word}"


GOALS = {
    ("small", "lean+log"): Goal(1.10),
    ("pre-batched", "lean+log"): Goal(50, over=True),
    ("mid", "lean+log"): Goal(1.02),
    ("mid", "world of 1"): Goal(1.15),
    ("mid", "world of 2"): Goal(1.15, base="raw in 2"),
    ("mid", "world of 4"): Goal(1.15, base="raw in 4"),
    ("two ranks", "lean+log"): Goal(1.05, kind="p10"),
}
STAMPS: list[tuple[float, float]] = []
"""Seconds on the clock, and of this thread's processor time, as each step begins."""


class Mlp(LightningModule):
    """An MLP that takes the time as each of its steps begins."""

    def __init__(self, widths: tuple[int, ...]) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, after in itertools.pairwise(widths):
            layers += [nn.Linear(before, after), nn.ReLU()]
        self.layers = nn.Sequential(*layers[:-1])

    def forward(self, batch: Batch) -> Tensor:
        """Return the loss."""
        STAMPS.append((time.perf_counter(), time.thread_time()))
        return nn.functional.cross_entropy(self.layers(batch[0]), batch[1])

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """As `forward`."""
        loss: Tensor = self(batch)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return Adam, as the raw loop has it."""
        return torch.optim.Adam(self.parameters(), lr=1e-3)


class BusyMlp(Mlp):
    """One that has hooks, and logs."""

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Log the loss."""
        loss: Tensor = self(batch)
        self.log("loss", loss)
        return loss

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Do nothing, as the next ones."""

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:  # noqa: D102
        pass

    def on_before_zero_grad(self, optimizer: Any) -> None:  # noqa: D102
        pass

    def on_before_backward(self, loss: Tensor) -> None:  # noqa: D102
        pass

    def on_after_backward(self) -> None:  # noqa: D102
        pass

    def on_before_optimizer_step(self, optimizer: Any) -> None:  # noqa: D102
        pass


class Prebatched:
    """A loader whose batches are there: what remains is the loop."""

    def __init__(self, batches: list[Batch]) -> None:
        self.batches = batches

    def __iter__(self) -> Iterator[Batch]:
        return iter(self.batches)

    def __len__(self) -> int:
        return len(self.batches)


class Case:
    """A model, its data, and so many steps."""

    def __init__(self, widths: tuple[int, ...], batch: int, steps: int, *, loaded: bool) -> None:
        self.widths, self.batch, self.steps, self.loaded = widths, batch, steps, loaded
        generator = torch.Generator().manual_seed(0)
        inputs = torch.randn(batch * steps, widths[0], generator=generator)
        self.data = TensorDataset(inputs, inputs.argmax(1) % widths[-1])

    def loader(self, sampler: Any = None) -> Any:
        """Return what the loops iterate over, new for each run."""
        if not self.loaded:
            parts = (tensor.split(self.batch) for tensor in self.data.tensors)
            return Prebatched(list(zip(*parts, strict=True)))
        return DataLoader(self.data, self.batch, shuffle=sampler is None, sampler=sampler)

    def model(self, kind: type[Mlp]) -> Mlp:
        """Return a new model with the same weights each time."""
        torch.manual_seed(0)
        return kind(self.widths)


Way = Callable[[Case, Path], None]
CASES: dict[str, Callable[[int], Case]] = {
    "small": lambda steps: Case((64, 64, 10), 32, steps, loaded=True),
    "pre-batched": lambda steps: Case((64, 64, 10), 32, steps, loaded=False),
    "mid": lambda steps: Case((512, 512, 512, 10), 64, max(60, steps // 5), loaded=True),
}


def raw(case: Case, folder: Path, *, ranks: int = 1, parts: int = 1, bare: bool = False) -> None:
    """Train as PyTorch's tutorials do, each batch in `parts` whose gradients are added."""
    model: nn.Module = case.model(Mlp)
    sampler = None
    if ranks > 1:
        model = nn.parallel.DistributedDataParallel(model)
        if case.loaded:
            sampler = torch.utils.data.DistributedSampler(case.data)
    optimizer: Any = torch.optim.Adam(model.parameters(), lr=1e-3)
    if bare:
        optimizer = BareOptimizer(optimizer)
    for batch in case.loader(sampler):
        optimizer.zero_grad()
        whole = [batch]
        for part in zip(*(t.chunk(parts) for t in batch), strict=True) if parts > 1 else whole:
            loss = model(part)
            loss.backward()
        optimizer.step()


def lean(kind: type[Mlp], *, run: bool = False, **options: Any) -> Way:
    """Return a way to train with LeanTrainer."""

    def train(case: Case, folder: Path) -> None:
        more = dict(options)
        with tempfile.TemporaryDirectory(dir=folder) as own:
            if run:
                from curitorch.external.journal import Journal

                more["store"] = Path(own, "checkpoints")
                more["journal"] = Journal(Path(own, "journal.jsonl"))
            LeanTrainer(accelerator="cpu", max_epochs=1, enable_progress_bar=False, **more).fit(
                case.model(kind), case.loader()
            )

    return train


def lightning(kind: type[Mlp], **options: Any) -> Way:
    """Return a way to train with Lightning's Trainer."""

    def train(case: Case, folder: Path) -> None:
        Trainer(
            accelerator="cpu",
            max_epochs=1,
            logger=False,
            enable_progress_bar=False,
            enable_checkpointing=False,
            enable_model_summary=False,
            **options,
        ).fit(case.model(kind), case.loader())

    return train


MODES: dict[str, Way] = {
    "raw": raw,
    "raw bare": functools.partial(raw, bare=True),
    "lean": lean(Mlp),
    "lean+log": lean(BusyMlp),
    "lean+run": lean(BusyMlp, run=True),
    "trainer": lightning(Mlp, devices=1),
    "trainer+log": lightning(BusyMlp, devices=1),
}


def timed(train: Way, case: Case, folder: Path, *, calls: int) -> Times:
    """Return median, 10th percentile and processor time of a run's steps in microseconds.

    Args:
        train: Runs it.
        case: What is trained.
        folder: For its files.
        calls: Of `training_step` in each step.
    """
    STAMPS.clear()
    train(case, folder)
    pairs = list(itertools.pairwise(STAMPS[20 * calls :: calls]))
    wall = [1e6 * (after[0] - before[0]) for before, after in pairs]
    processor = [1e6 * (after[1] - before[1]) for before, after in pairs]
    return (
        statistics.median(wall),
        statistics.quantiles(wall, n=10)[0],
        statistics.median(processor),
    )


def measure(name: str, modes: dict[str, Way], case: Case, rounds: int) -> dict[str, list[Times]]:
    """Return the times of each mode's rounds; the first, which warms up, is left out."""
    order, taken = random.Random(name), {mode: [] for mode in modes}
    with tempfile.TemporaryDirectory() as folder:
        for number in range(rounds + 1):
            for mode in order.sample(list(modes), len(modes)):
                calls = int(mode[-1]) if mode[-1].isdigit() else 1
                found = timed(modes[mode], case, Path(folder), calls=calls)
                if number:
                    taken[mode].append(found)
    return taken


def compared(
    taken: dict[str, list[Times]], mode: str, base: str, kind: int
) -> tuple[float, float, float]:
    """Return a mode's microseconds, as a multiple of another's, and how many more they are."""
    pairs = [(a[kind], b[kind]) for a, b in zip(taken[mode], taken[base], strict=True)]
    return (
        statistics.median(own for own, _ in pairs),
        statistics.median(own / other for own, other in pairs),
        statistics.median(own - other for own, other in pairs),
    )


def show(name: str, taken: dict[str, list[Times]]) -> None:
    """Print a table of one case: microseconds, ratios to the raw loop, microseconds over it."""
    print(f"\n{name:12}{'median':>14}{'p10':>20}{'processor':>20}")
    for mode in taken:
        line = f"{mode:12}"
        for kind in range(len(KINDS)):
            own, ratio, over = compared(taken, mode, "raw", kind)
            line += f"{own:8.0f} {ratio:5.2f} {over:+5.0f}"
        goal = GOALS.get((name, mode))
        print(f"{line}   {goal.verdict(taken, mode) if goal else ''}".rstrip(), flush=True)


def two_ranks(steps: int, rounds: int) -> None:
    """Be one of two processes: raw DDP against the others."""
    torch.distributed.init_process_group("gloo")
    ranks: dict[str, Any] = {"strategy": "ddp", "devices": 2}
    modes = {
        "raw": lambda case, folder: raw(case, folder, ranks=2),
        "lean": lean(Mlp, **ranks),
        "lean+log": lean(BusyMlp, **ranks),
        "trainer": lightning(Mlp, **ranks),
        "trainer+log": lightning(BusyMlp, **ranks),
    }
    case = Case((64, 64, 10), 32, steps, loaded=True)
    taken = measure("two ranks", modes, case, rounds)
    if torch.distributed.get_rank() == 0:
        show("two ranks", taken)
    torch.distributed.destroy_process_group()


def main() -> None:
    """Measure all cases and print their tables."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=2000, help="of the small model, per run")
    parser.add_argument("--quick", action="store_true", help="one short round, to see it work")
    parser.add_argument("--only", action="append", help="a case; may be given several times")
    parser.add_argument("--as-rank", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    rounds, steps = (1, 200) if args.quick else (args.rounds, args.steps)
    torch.set_num_threads(1)
    for name in ("lightning", "lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    if args.as_rank:
        two_ranks(max(steps // 2, 150), rounds)
        return
    for name, case in CASES.items():
        if args.only and name not in args.only:
            continue
        modes = dict(MODES)
        if name == "mid":
            for grains in (1, 2, 4):  # of 64 samples
                world = lean(Mlp, exact="world", batch_size=64, grain=64 // grains)
                if grains > 1:
                    modes[f"raw in {grains}"] = functools.partial(raw, parts=grains)
                modes[f"world of {grains}"] = world
        show(name, measure(name, modes, case(steps), rounds))
    if not args.only or "two ranks" in args.only:
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
        command += ["--nproc-per-node", "2", __file__, "--as-rank"]
        command += ["--rounds", str(rounds), "--steps", str(steps)]
        subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
