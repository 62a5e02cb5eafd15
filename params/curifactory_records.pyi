"""curifactory's experiments, records, stages and cachers, declared for type checkers.

Documented in curifactory itself; at run time there are its own, see curifactory_api.py.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from .curifactory_reporters import Reportable

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

    def __init__(self, manager: ArtifactManager, param_set: object, hide: bool = False) -> None: ...
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
