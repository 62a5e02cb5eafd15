"""`experiment` with a true exit status: the same arguments, but a failed experiment is not a 0.

    python -m curitorch.stages.run digits -p quick

Ends with 1 when the experiment failed, or was told to overwrite a stage that there is not; with
130 after Ctrl-C, by SIGTERM when it was sent that.
"""

import functools
import io
import json
import multiprocessing
import os
import signal
import sys
from types import FrameType
from typing import Any

from ..external.leash import follow_parent
from ..params.curifactory_api import submodule
from .project_files import missing_module, torn_file


def main() -> None:
    """Run curifactory's command line and end with what became of the experiment."""
    if isinstance(sys.stdout, io.TextIOWrapper):  # what an old locale lacks is no error
        sys.stdout.reconfigure(errors="backslashreplace")
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
        torn = torn_file()
        if torn is None:
            raise
        print(torn, file=sys.stderr)  # noqa: T201
        sys.exit(1)
    except ModuleNotFoundError as error:
        missing = missing_module(error.name, sys.argv[1:])
        if missing is None:
            raise
        print(missing, file=sys.stderr)  # noqa: T201
        sys.exit(1)
    finally:
        experiment.run_experiment = run_experiment  # type: ignore[attr-defined]
    if any(manager.status == "error" for manager in managers):
        sys.exit(1)
    for sentence in filter(None, map(_not_overwritten, managers)):
        print(sentence, file=sys.stderr)  # noqa: T201
        sys.exit(1)


class _StageExited(Exception):
    """A stage raised SystemExit, which curifactory would let end the process with status 0."""

    def __init__(self, status: object) -> None:
        super().__init__(status)
        self.status = status


def _not_overwritten(manager: Any) -> str | None:
    """Return a sentence on stages that were to be overwritten and that there are not."""
    stages = {name for record in manager.records for name in record.stages}
    unknown = [name for name in manager.overwrite_stages if name not in stages]
    if not unknown or not stages:
        return None
    return (
        f"--overwrite-stage {' '.join(unknown)}: the experiment has no such stage, so nothing was "
        f"overwritten for it. Its stages are {', '.join(sorted(stages))}."
    )


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
