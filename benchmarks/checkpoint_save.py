"""Saving a checkpoint: our plugins against torch.save and Lightning's, in turn, in one sitting.

    python benchmarks/checkpoint_save.py --megabytes 1000 --rounds 7

The state is that of a transformer and its AdamW. `stall` is what training waits for, `durable` is
the time until the file is whole on the disk (for Lightning's plugins, which do not sync: visible).
"""

import os
import statistics
import tempfile
import time
import warnings
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import torch
from lightning.pytorch.plugins import AsyncCheckpointIO as LightningAsyncCheckpointIO
from lightning.pytorch.plugins import TorchCheckpointIO

from curitorch.external.stores.async_io import AsyncCheckpointIO
from curitorch.external.stores.verified_io import VerifiedCheckpointIO

Save = Callable[[dict[str, Any], Path], tuple[float, float]]


@click.command()
@click.option("--megabytes", default=1000, show_default=True, help="Size of the state.")
@click.option("--rounds", default=7, show_default=True, help="Warm saves of each peer.")
@click.option("--folder", type=click.Path(path_type=Path), help="Where; a temporary one without.")
def main(megabytes: int, rounds: int, folder: Path | None) -> None:
    """Print medians, and ratios to what they are held against."""
    warnings.simplefilter("ignore")
    state = _state(megabytes)
    ours = AsyncCheckpointIO()
    peers: dict[str, Save] = {
        "memcpy into prepared memory": _memcpy(),
        "torch.save + fsync": _torch_save,
        "Lightning TorchCheckpointIO": _plugin(TorchCheckpointIO()),
        "Lightning AsyncCheckpointIO": _lightning_async,
        "VerifiedCheckpointIO": _plugin(VerifiedCheckpointIO()),
        "AsyncCheckpointIO": _asynchronous(ours),
    }
    times: dict[str, list[tuple[float, float]]] = defaultdict(list)
    with tempfile.TemporaryDirectory(dir=folder) as place:
        for number in range(rounds + 1):
            for name, save in peers.items():
                path = Path(place) / f"{number}.ckpt"
                measured = save(state, path)
                if number:  # the first one of each is cold
                    times[name].append(measured)
                for left in Path(place).iterdir():
                    left.unlink()
    ours.teardown()
    print(f"{'milliseconds, medians of ' + str(rounds):32} {'stall':>8} {'durable':>8}")
    for name, measured in times.items():
        stall, durable = (statistics.median(column) for column in zip(*measured, strict=True))
        print(f"{name:32} {stall * 1e3:8.0f} {durable * 1e3:8.0f}")
    _print_targets(times)


def _print_targets(times: dict[str, list[tuple[float, float]]]) -> None:
    rows = [
        ("AsyncCheckpointIO", 0, "memcpy into prepared memory", 0, 1.5),
        ("AsyncCheckpointIO", 0, "Lightning AsyncCheckpointIO", 0, 0.25),
        ("AsyncCheckpointIO", 1, "Lightning TorchCheckpointIO", 1, 0.35),
        ("VerifiedCheckpointIO", 1, "torch.save + fsync", 1, 1.0),
    ]
    for ours, column, peer, other, target in rows:
        pairs = zip(times[ours], times[peer], strict=True)
        ratio = statistics.median(a[column] / b[other] for a, b in pairs)
        what = ("stall", "durable")[column]
        print(f"{what} of {ours} / {peer}: {ratio:.2f} (target ≤ {target})")


def _state(megabytes: int) -> dict[str, Any]:
    layers = [torch.randn(megabytes * 250_000 // 60) for _ in range(20)]
    moments = [
        {name: torch.randn_like(layer) for name in ("exp_avg", "exp_avg_sq")} for layer in layers
    ]
    return {
        "global_step": 1,
        "epoch": 0,
        "state_dict": {f"layer{number}": layer for number, layer in enumerate(layers)},
        "optimizer_states": [{"state": dict(enumerate(moments))}],
    }


def _memcpy() -> Save:
    prepared: list[torch.Tensor] = []

    def save(state: dict[str, Any], path: Path) -> tuple[float, float]:
        tensors = [
            *state["state_dict"].values(),
            *(t for pair in state["optimizer_states"][0]["state"].values() for t in pair.values()),
        ]
        if not prepared:
            prepared.extend(torch.ones_like(tensor) for tensor in tensors)
        begun = time.perf_counter()
        for target, tensor in zip(prepared, tensors, strict=True):
            target.copy_(tensor)
        stall = time.perf_counter() - begun
        return stall, stall

    return save


def _torch_save(state: dict[str, Any], path: Path) -> tuple[float, float]:
    begun = time.perf_counter()
    with path.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    durable = time.perf_counter() - begun
    return durable, durable


def _plugin(plugin: Any) -> Save:
    def save(state: dict[str, Any], path: Path) -> tuple[float, float]:
        begun = time.perf_counter()
        plugin.save_checkpoint(state, path)
        durable = time.perf_counter() - begun
        return durable, durable

    return save


def _lightning_async(state: dict[str, Any], path: Path) -> tuple[float, float]:
    plugin = LightningAsyncCheckpointIO(TorchCheckpointIO())
    begun = time.perf_counter()
    plugin.save_checkpoint(state, path)
    stall = time.perf_counter() - begun
    plugin.teardown()
    return stall, time.perf_counter() - begun


def _asynchronous(plugin: AsyncCheckpointIO) -> Save:
    def save(state: dict[str, Any], path: Path) -> tuple[float, float]:
        begun = time.perf_counter()
        plugin.save_checkpoint(state, path)
        stall = time.perf_counter() - begun
        plugin.wait()
        return stall, time.perf_counter() - begun

    return save


if __name__ == "__main__":
    main()
