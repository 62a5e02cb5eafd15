"""`experiment` with a true exit status: the same arguments, but a failed experiment is not a 0.

    python -m curitorch.stages.run digits -p quick

Ends with 1 when the experiment failed, 130 after Ctrl-C, by SIGTERM when it was sent that.
"""

import functools
import json
import multiprocessing
import os
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Any

from ..external.leash import follow_parent
from ..params.curifactory_api import submodule


def main() -> None:
    """Run curifactory's command line and end with what became of the experiment."""
    cli, experiment = submodule("cli"), submodule("experiment")
    managers: list[Any] = []
    run_experiment = experiment.run_experiment

    @functools.wraps(run_experiment)
    def watched(*args: Any, **kwargs: Any) -> Any:
        if multiprocessing.parent_process() is not None:  # a child of --parallel
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            follow_parent(os.getppid())
        try:
            results, manager = run_experiment(*args, **kwargs)
        except SystemExit as error:
            if isinstance(error.__context__, BrokenPipeError):  # rich ends by it
                sys.exit(
                    "Nobody reads this experiment's output any more: it was ended and is not "
                    "finished. Write it to a file to have it go on: curitorch … > FILE."
                )
            raise _StageExited(error.code) from error
        managers.append(manager)
        return results, manager

    experiment.run_experiment = watched  # type: ignore[attr-defined]
    signal.signal(signal.SIGTERM, _end_children)
    try:
        cli.main()
    except _StageExited as error:
        print(  # noqa: T201
            f"A stage called sys.exit({error.status!r}), which is no way to end a stage: the "
            "experiment is not finished.",
            file=sys.stderr,
        )
        sys.exit(1)
    except KeyboardInterrupt as error:
        print(f"Interrupted. {error}".rstrip(), file=sys.stderr)  # noqa: T201
        sys.exit(130)
    except json.JSONDecodeError:
        torn = _torn_file()
        if torn is None:
            raise
        print(torn, file=sys.stderr)  # noqa: T201
        sys.exit(1)
    finally:
        experiment.run_experiment = run_experiment  # type: ignore[attr-defined]
    if any(manager.status == "error" for manager in managers):
        sys.exit(1)


class _StageExited(Exception):
    """A stage raised SystemExit, which curifactory would let end the process with status 0."""

    def __init__(self, status: object) -> None:
        super().__init__(status)
        self.status = status


def _torn_file() -> str | None:
    """Return a sentence on the first of curifactory's own files that is not JSON, if one is."""
    config, folder = Path("curifactory_config.json"), "data/"
    kept = "Nothing that was trained is in it."
    try:
        if config.exists():
            folder = json.loads(config.read_bytes()).get("manager_cache_path", folder)
    except ValueError as error:
        return f"'{config}' is not JSON ({error}). Mend it."
    for name, what in (
        ("store.json", f"Put a copy back or move it away: runs are counted anew. {kept}"),
        ("params_registry.json", f"Move it away: it is written anew. {kept}"),
    ):
        path = Path(folder, name)
        try:
            if path.exists():
                json.loads(path.read_bytes())
        except ValueError as error:
            return (
                f"'{path}', which curifactory keeps, is not whole JSON ({error}); a full disk may "
                f"have torn it. {what}"
            )
    return None


def _end_children(number: int, frame: FrameType | None) -> None:
    """Pass SIGTERM to the children of `--parallel`, wait for them, and end by it."""
    for child in multiprocessing.active_children():
        child.terminate()
    for child in multiprocessing.active_children():
        child.join()
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


if __name__ == "__main__":
    main()
