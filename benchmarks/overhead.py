"""What a stage costs: the digits experiment against the same torchrun command run bare.

    python benchmarks/overhead.py --rounds 3 --epochs 300

Both train the same model in two processes, in turn, in one sitting; the medians and their ratio
are printed. Then the fully cached re-run against `python -c "import curifactory"`.
"""

import json
import shlex
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click

from curitorch.external.journal import read_journal
from curitorch.external.rundir import TrainingRun

EXAMPLE = Path(__file__).parents[1] / "examples" / "digits"
PARAMS = """
import dataclasses
from params import quick

def get_params():
    [params] = quick.get_params()
    arguments = {{**params.trainer.trainer_args, "enable_progress_bar": False}}
    params.trainer = dataclasses.replace(
        params.trainer, epochs={epochs}, trainer_args=arguments, seed={seed}
    )
    return [params]
"""


@click.command()
@click.option("--rounds", default=3, show_default=True, help="Runs of each kind.")
@click.option(
    "--epochs", default=300, show_default=True, help="Chosen so that a run takes a minute."
)
@click.option("--cached-rounds", default=9, show_default=True, help="Cached re-runs.")
def main(rounds: int, epochs: int, cached_rounds: int) -> None:
    """Run both kinds in turn and print the table."""
    with tempfile.TemporaryDirectory() as folder:
        project = Path(folder) / "digits"
        ignore = shutil.ignore_patterns("data", "logs", "reports", "__pycache__")
        shutil.copytree(EXAMPLE, project, ignore=ignore)
        experiment = [sys.executable, "-m", "curitorch.stages.run", "digits", "-p", "timed"]
        stages, bares = [], []
        for number in range(rounds):
            (project / "params" / "timed.py").write_text(PARAMS.format(epochs=epochs, seed=number))
            before = set(project.glob("data/cache/*_train_run"))
            _timed(experiment, project)
            [path] = set(project.glob("data/cache/*_train_run")) - before
            stages.append(_stage_times(TrainingRun(path)))
            bares.append(_bare_times(TrainingRun(path), project, number))
        _print_table(stages, bares)
        cached, imports = [], []
        for _ in range(cached_rounds):
            cached.append(_timed(experiment, project))
            imports.append(_timed([sys.executable, "-c", "import curifactory"], project))
        ratio = statistics.median(cached) / statistics.median(imports)
        print(
            f"cached re-run {statistics.median(cached):.2f} s, import curifactory "
            f"{statistics.median(imports):.2f} s, ratio {ratio:.2f} (target ≤ 2)"
        )


def _timed(command: list[str], folder: Path) -> float:
    started = time.perf_counter()
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return time.perf_counter() - started


def _stage_times(run: TrainingRun) -> tuple[float, float]:
    """Return (seconds from the stage's beginning to its end, to its first step).

    The stage's body begins when the run directory's lock is taken and ends with the report.
    """
    begun = (run.path / "lock").stat().st_mtime
    ended = max(path.stat().st_mtime for path in (run.path / "report").glob("*.csv"))
    return ended - begun, _first_step(run) - begun


def _bare_times(run: TrainingRun, project: Path, number: int) -> tuple[float, float]:
    """Run the stage's own command by hand, in another run directory."""
    bare = TrainingRun(project / f"bare-{number}")
    words = shlex.split(run.command or "")
    words = [f"--run_dir={bare.path}" if word.startswith("--run_dir=") else word for word in words]
    begun = time.time()
    seconds = _timed(words, project)
    manifests = [json.loads(r.layout.manifest.read_text()) for r in (run, bare)]
    if manifests[0]["step"] != manifests[1]["step"]:
        raise RuntimeError("The stage and the bare command did not train the same.")
    return seconds, _first_step(bare) - begun


def _first_step(run: TrainingRun) -> float:
    events = read_journal(run.layout.journal)
    return next(float(event["time"]) for event in events if event["event"] == "step")


def _print_table(stages: list[tuple[float, float]], bares: list[tuple[float, float]]) -> None:
    print("seconds           stage   bare  ratio  difference")
    for column, name in enumerate(("whole", "to first step")):
        stage = statistics.median(times[column] for times in stages)
        bare = statistics.median(times[column] for times in bares)
        print(f"{name:15} {stage:7.2f} {bare:6.2f} {stage / bare:6.3f} {stage - bare:+10.2f}")
    pairs = ", ".join(
        f"{stage[0] / bare[0]:.3f}" for stage, bare in zip(stages, bares, strict=True)
    )
    print(f"whole, ratio of each round: {pairs} (target ≤ 1.03, and ≤ 1 s to the first step)")


if __name__ == "__main__":
    main()
