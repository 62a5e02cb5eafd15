"""curifactory's classic API, with types: the only file of this package that imports curifactory.

It is `curifactory` today and announced to become `curifactory.old`; both are tried. curifactory
has no types of its own, so the part that this package uses is declared here.
"""

# ruff: noqa: D102, D103  # the declarations: untyped and documented in curifactory itself

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
    from collections.abc import Callable, Mapping, Sequence
    from dataclasses import dataclass, field
    from datetime import datetime
    from typing import Any

    @dataclass
    class ExperimentParameters:
        """A parameter set; curifactory fills `hash` when a record takes it."""

        name: str = "UNNAMED"
        hash: str | None = None
        overwrite: bool = False
        hash_representations: dict[str, Callable[[Any, Any], Any] | None] = field(
            default_factory=dict, repr=False
        )

        def params_hash(self, dry: bool = False) -> Any: ...  # a str, dry a dict

    def set_hash_functions(
        representations: dict[str, Callable[[Any, Any], Any] | None] = ...,
        /,
        **more: Callable[[Any, Any], Any] | None,
    ) -> Any: ...  # a dataclasses.field, typed as what it holds

    class ArtifactManager:
        """One run of an experiment, or of a notebook."""

        current_stage_name: str
        stage_active: bool
        experiment_name: str
        experiment_run_number: int
        run_timestamp: datetime
        run_line: str
        manager_cache_path: str
        cache_path: str
        runs_path: str
        logs_path: str
        reports_path: str
        config: dict[str, Any]
        records: list[Record]
        artifacts: list[Any]
        reportables: list[Reportable]
        prefix: str | None
        notes: str | None
        store_full: bool
        dry: bool
        dry_cache: bool
        overwrite: bool
        overwrite_stages: list[str]
        parallel_mode: bool
        lazy: bool
        ignore_lazy: bool
        interactive: bool
        error_thrown: bool
        error: str | None
        status: str
        map_mode: bool
        map_progress: Any  # rich's Progress under --progress, else None

        def __init__(self, experiment_name: str | None = None, **options: Any) -> None: ...
        def get_artifact_path(
            self,
            obj_name: str,
            record: Record,
            subdir: str | None = None,
            prefix: str | None = None,
            stage_name: str | None = None,
            store: bool = False,
        ) -> str: ...
        def get_reference_name(self) -> str: ...
        def get_run_output_path(self, obj_name: str | None = None) -> str: ...
        def generate_report(self) -> None: ...

    class Record:
        """One line of stages with one parameter set."""

        manager: ArtifactManager
        params: Any  # the user's parameter class, None in an aggregate
        state: dict[str, Any]
        stages: list[str]
        stage_cachers: list[Cacheable] | None  # inside a stage's body only
        is_aggregate: bool
        input_records: list[Record]
        unstored_tracked_paths: list[dict[str, str]]

        def __init__(
            self, manager: ArtifactManager, param_set: object, hide: bool = False
        ) -> None: ...
        def get_hash(self) -> str: ...
        def report(self, reportable: Reportable) -> None: ...
        def make_copy(self, param_set: object = None, add_to_manager: bool = True) -> Record: ...
        def get_path(
            self,
            obj_name: str,
            subdir: str | None = None,
            prefix: str | None = None,
            stage_name: str | None = None,
            track: bool = True,
        ) -> str: ...
        def get_dir(
            self,
            dir_name_suffix: str,
            subdir: str | None = None,
            prefix: str | None = None,
            stage_name: str | None = None,
            track: bool = True,
        ) -> str: ...

    class Cacheable:
        """The base of every cacher."""

        path_override: str | None
        name: str | None
        subdir: str | None
        prefix: str | None
        extension: str | None
        record: Record | None
        track: bool
        cache_paths: list[str]
        metadata: dict[str, Any] | None
        extra_metadata: dict[str, Any]
        stage: str | None

        def __init__(
            self,
            path_override: str | None = None,
            name: str | None = None,
            subdir: str | None = None,
            prefix: str | None = None,
            extension: str | None = None,
            record: Record | None = None,
            track: bool = True,
        ) -> None: ...
        def get_path(self, suffix: str | None = None) -> str: ...
        def get_dir(self, suffix: str | None = None) -> str: ...
        def set_record(self, record: Record) -> None: ...
        def collect_metadata(self) -> None: ...
        def save_metadata(self) -> None: ...
        def load_metadata(self) -> dict[str, Any]: ...
        def check(self) -> bool: ...
        def load(self) -> Any: ...  # each cacher says
        def save(self, obj: Any) -> Any: ...  # each cacher says

    class Lazy:
        """An output that stays on disk; one object is shared by all records of a stage."""

        name: str
        cacher: Cacheable
        resolve: bool

        def __init__(self, name: str, resolve: bool = True) -> None: ...
        def load(self) -> Any: ...  # what its cacher loads

    class SkippedOutput:
        """What is in the state for an output of a stage that need not run."""

    def stage(
        inputs: Sequence[str] | None = None,
        outputs: Sequence[str | Lazy] | None = None,
        cachers: Sequence[type[Cacheable] | Cacheable] | None = None,
        suppress_missing_inputs: bool = False,
    ) -> Callable[[Callable[..., Any]], Callable[..., Record]]: ...
    def aggregate(
        inputs: Sequence[str] | None = None,
        outputs: Sequence[str | Lazy] | None = None,
        cachers: Sequence[type[Cacheable] | Cacheable] | None = None,
    ) -> Callable[[Callable[..., Any]], Callable[..., Record]]: ...

    class Reportable:
        """The base of every reporter; `name` must not hold a '/'."""

        name: str | None
        group: str | None

        def __init__(self, name: str | None = None, group: str | None = None) -> None: ...
        def html(self) -> str | list[str]: ...
        def render(self) -> None: ...

    class HTMLReporter(Reportable):
        """Some HTML."""

        def __init__(
            self,
            html_string: str | list[str],
            name: str | None = None,
            group: str | None = None,
        ) -> None: ...

    class JsonReporter(Reportable):
        """A dictionary."""

        def __init__(
            self,
            dictionary: Mapping[str, Any],
            name: str | None = None,
            group: str | None = None,
        ) -> None: ...

    class DFReporter(Reportable):
        """A pandas DataFrame."""

        def __init__(
            self,
            df: object,
            name: str | None = None,
            group: str | None = None,
            float_prec: int = 4,
        ) -> None: ...

    class FigureReporter(Reportable):
        """A matplotlib figure."""

        def __init__(
            self,
            fig: object,
            name: str | None = None,
            group: str | None = None,
            **savefig_kwargs: Any,
        ) -> None: ...

    class LinePlotReporter(Reportable):
        """Lines, by their names where `y` and `x` are dictionaries."""

        def __init__(
            self,
            y: Mapping[str, Sequence[float]] | Sequence[float],
            x: Mapping[str, Sequence[float]] | Sequence[float] | None = None,
            name: str | None = None,
            group: str | None = None,
            plot_kwargs: Mapping[str, Any] = ...,
            savefig_kwargs: Mapping[str, Any] = ...,
        ) -> None: ...

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
