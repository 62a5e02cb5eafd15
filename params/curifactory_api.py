"""curifactory's classic API, with types: the only file of this package that imports curifactory.

It is `curifactory` today and announced to become `curifactory.old`; both are tried. curifactory
has no types of its own, so the part that this package uses is declared in curifactory_records.pyi
and curifactory_reporters.pyi.
"""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import TYPE_CHECKING

__all__ = [
    "ArtifactManager",
    "Cacheable",
    "DFReporter",
    "ExperimentParameters",
    "FigureReporter",
    "HTMLReporter",
    "JsonReporter",
    "Lazy",
    "LinePlotReporter",
    "Record",
    "Reportable",
    "SkippedOutput",
    "aggregate",
    "set_hash_functions",
    "stage",
    "submodule",
]

NAMES = ("curifactory", "curifactory.old")


def submodule(name: str) -> ModuleType:
    """Import a submodule of the classic API, such as `cli` (argparse only) or `experiment`."""
    return importlib.import_module(f"{_classic.__name__}.{name}")


def _find_classic() -> ModuleType:
    """Import curifactory's classic API under the first of its names.

    Raises:
        ImportError: curifactory is not installed, or has the classic API under neither name.
    """
    for name in NAMES:
        try:
            module = importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name not in NAMES:
                raise  # curifactory is there, and something that it needs is not
            continue
        if hasattr(module, "ExperimentParameters") and hasattr(module, "Record"):
            return module
    raise ImportError(
        f"The classic curifactory API was found neither as {' nor as '.join(map(repr, NAMES))}. "
        'Install it: pip install "curifactory>=0.20,<1".'
    )


_classic = _find_classic()

if TYPE_CHECKING:
    from .curifactory_records import (
        ArtifactManager,
        Cacheable,
        ExperimentParameters,
        Lazy,
        Record,
        SkippedOutput,
        aggregate,
        set_hash_functions,
        stage,
    )
    from .curifactory_reporters import (
        DFReporter,
        FigureReporter,
        HTMLReporter,
        JsonReporter,
        LinePlotReporter,
        Reportable,
    )
else:
    ExperimentParameters = _classic.ExperimentParameters
    set_hash_functions = _classic.set_hash_functions
    ArtifactManager = _classic.ArtifactManager
    Record = _classic.Record
    Lazy = _classic.Lazy
    stage = _classic.stage
    aggregate = _classic.aggregate
    Cacheable = submodule("caching").Cacheable
    SkippedOutput = submodule("staging").SkippedOutput
    _reporting = submodule("reporting")
    Reportable = _reporting.Reportable
    HTMLReporter = _reporting.HTMLReporter
    JsonReporter = _reporting.JsonReporter
    DFReporter = _reporting.DFReporter
    FigureReporter = _reporting.FigureReporter
    LinePlotReporter = _reporting.LinePlotReporter
