"""The switches that decide which bits a computation gives, recorded with a checkpoint.

The same seeds and samples give the same weights only with the same libraries, threads and kernels.
What a checkpoint has:

    {"torch": "2.13.0", "python": "3.11.9", "threads": 1, "deterministic": False, "tf32": False, …}
"""

import os
import platform
import warnings
from collections.abc import Mapping
from functools import cache
from importlib.metadata import version
from typing import Any

import torch

KEY = "curitorch_switches"
"""Where a checkpoint has them."""

_REMEDIES = {
    "threads": "torch.set_num_threads({}) or OMP_NUM_THREADS={}",
    "deterministic": "torch.use_deterministic_algorithms({})",
    "cudnn_deterministic": "torch.backends.cudnn.deterministic = {}",
    "cudnn_benchmark": "torch.backends.cudnn.benchmark = {}",
    "cudnn_tf32": "torch.backends.cudnn.allow_tf32 = {}",
    "matmul_precision": "torch.set_float32_matmul_precision({!r})",
    "cublas_workspace": "CUBLAS_WORKSPACE_CONFIG={}",
    "mkldnn": "torch.backends.mkldnn.enabled = {}",
    "flush_denormal": "torch.set_flush_denormal({})",
}
"""How each is set to what it was; the others are what is installed or plugged in."""


def switches(device: torch.device | str = "cpu") -> dict[str, Any]:
    """Return how they stand in this process, as plain data.

    Args:
        device: What the training computes on.
    """
    device = torch.device(device)
    on_gpu = device.type == "cuda"
    # a number that is too small to be normal is zero then
    flushes = bool((torch.tensor([1e-39]) * torch.ones(1)).item() == 0.0)
    found: dict[str, Any] = {
        "torch": str(torch.__version__),
        "numpy": _version("numpy"),
        "lightning": _version("lightning"),
        "python": platform.python_version(),
        "machine": platform.machine(),
        "device": torch.cuda.get_device_name(device) if on_gpu else device.type,
        "threads": torch.get_num_threads(),
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "mkldnn": bool(torch.backends.mkldnn.enabled),
        "flush_denormal": flushes,
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "matmul_precision": torch.get_float32_matmul_precision(),
        "cublas_workspace": os.environ.get("CUBLAS_WORKSPACE_CONFIG"),
        "cudnn_deterministic": torch.backends.cudnn.deterministic,
        "cudnn_benchmark": torch.backends.cudnn.benchmark,
        "cudnn_tf32": torch.backends.cudnn.allow_tf32,
    }
    if on_gpu:
        found["cuda"] = torch.version.cuda
        found["cudnn"] = torch.backends.cudnn.version()  # type: ignore[no-untyped-call]
    return found


def differences(
    saved: Mapping[str, Any], now: Mapping[str, Any], *, on_gpu: bool = False
) -> list[str]:
    """Return what differs that matters, in words, with what brings it back where a call does.

    A switch that one side does not know is passed over, and those of GPUs where none computes.
    """
    return [
        _said(name, saved[name], now[name])
        for name in saved
        if name in now and saved[name] != now[name] and (on_gpu or not name.startswith("cu"))
    ]


def compare(saved: Mapping[str, Any] | None, now: Mapping[str, Any]) -> None:
    """Warn if a checkpoint was computed under other switches than those of now.

    Args:
        saved: What it has under `KEY`; None says nothing.
        now: What `switches` returned.
    """
    on_gpu = now.get("device") != "cpu"
    found = differences(saved or {}, now, on_gpu=on_gpu)
    if found:
        warnings.warn(
            f"The checkpoint was trained with {'; '.join(found)}: what follows may differ in the "
            "last bits from what would have followed there.",
            stacklevel=2,
        )


@cache
def _version(package: str) -> str:
    return version(package)


def _said(name: str, before: Any, now: Any) -> str:
    remedy = _REMEDIES.get(name)
    if remedy is None or before is None:
        return f"{name}={before!r}, and here it is {now!r}"
    setting = remedy.format(*[before] * remedy.count("{"))
    return f"{name}={before!r}, and here it is {now!r} ({setting} brings it back)"
