"""The sbatch file of a training run: `job.sbatch` in its run directory, made to be read.

It is a whole account of the job (srun → torchrun → trainer), and needs no experiment around it:
`sbatch job.sbatch` trains, saves before the time limit, requeues itself, and completes the run.
"""

import hashlib
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from ...external.atomic import whole_file
from ...external.environment import RANK_LIKE, RUN_DIR
from ...external.slurm_job import SCRIPT
from ...params import LaunchParams, SlurmParams
from .script_body import render_body


def job_name(run: Path) -> str:
    """Return the name of the job of a run directory, by which it is found again in the queue."""
    digest = hashlib.sha256(str(run.resolve()).encode()).hexdigest()[:10]
    name = "".join(c if (c.isalnum() and c.isascii()) or c in "-_." else "-" for c in run.name)
    return f"{name[:60]}-{digest}"


def render_job(
    run: Path,
    program: Sequence[str],
    launch: LaunchParams,
    slurm: SlurmParams,
    *,
    environment: Mapping[str, str],
    folder: Path,
    saves: Path | None = None,
) -> str:
    """Return the text of the job's script.

    Args:
        run: The run directory.
        program: The trainer's words, `-m module` or a script, with its options.
        launch: How many processes, where.
        slurm: What the job asks for.
        environment: Variables to set in it.
        folder: Where the trainers run.
        saves: Where a script with the SDK saves, or None for other trainers.

    Raises:
        ValueError: A path cannot stand in an sbatch file, or the settings do not fit each other.
    """
    check(launch, slurm)
    run = run.resolve()
    path = run / SCRIPT
    variables = {**environment, RUN_DIR: str(run)}
    lines = [
        "#!/bin/bash",
        *header(launch, slurm, name=job_name(run), log=run / "slurm" / "job-%j.log", folder=folder),
        "",
        f"# curitorch trains in {shlex.quote(str(run))}.",
        f"#   by hand:               sbatch {shlex.quote(str(path))}",
        "#   let it save and stop:  scancel --batch --signal=USR1 JOB",
        "#   stop it:               scancel JOB",
        "",
        *(f"module load {shlex.quote(module)}" for module in slurm.modules),
        *slurm.setup,
        "unset " + " ".join(RANK_LIKE),
        *(f"export {name}={shlex.quote(value)}" for name, value in variables.items()),
        '[ -z "$SLURM_CPUS_PER_TASK" ] || export SRUN_CPUS_PER_TASK="$SLURM_CPUS_PER_TASK"',
        "",
        f"run={shlex.quote(str(run))}",
        f"python={shlex.quote(sys.executable)}",
        "nodes=" + _nodes(launch, slurm),
        f"processes={launch.processes_per_node}  # on each node",
        "trainer=(",
        *(f"    {shlex.quote(word)}" for word in program),
        ")",
    ]
    return "\n".join(lines) + "\n" + render_body(launch, slurm, saves=saves)


def write_script(run: Path, text: str) -> Path:
    """Write the script of a run into its directory, for its owner alone, and return its path."""
    path = run.resolve() / SCRIPT
    (path.parent / "slurm").mkdir(parents=True, exist_ok=True)  # sbatch makes no folder for a log
    with whole_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    path.chmod(0o700)  # its variables may be secret
    return path


def header(
    launch: LaunchParams, slurm: SlurmParams, *, name: str, log: Path, folder: Path
) -> list[str]:
    """Return the #SBATCH lines.

    Args:
        launch: How many nodes.
        slurm: What the job asks for.
        name: The job's.
        log: Where its own output goes; sbatch's %-words count in the file's name alone.
        folder: Where it runs.

    Raises:
        ValueError: A path cannot stand in such a line.
    """
    output = Path(str(log.parent).replace("%", "%%")) / log.name
    options = {
        "job-name": name,
        "partition": slurm.partition,
        "account": slurm.account,
        "time": slurm.time_limit,
        "nodes": launch.nodes,
        "ntasks-per-node": 1,
        "cpus-per-task": slurm.cpus_per_node,
        "gpus-per-node": slurm.gpus_per_node,
        "mem": slurm.memory,
        "constraint": slurm.constraint,
        "output": _quoted(output),
        "chdir": _quoted(folder),
        "open-mode": "append",
        "signal": f"B:TERM@{slurm.warning_seconds}",
    }
    return [
        *(f"#SBATCH --{option}={value}" for option, value in options.items() if value is not None),
        "#SBATCH --requeue",
        *(["#SBATCH --no-kill"] if slurm.min_nodes is not None else []),
        *(f"#SBATCH {option}" for option in slurm.sbatch),
    ]


def check(launch: LaunchParams, slurm: SlurmParams) -> None:
    """Refuse settings that do not fit each other.

    Raises:
        ValueError: They do not; the message says what to write.
    """
    if slurm.min_nodes is None:
        return
    if slurm.min_nodes > launch.nodes:
        raise ValueError(
            f"min_nodes is {slurm.min_nodes}, more than launch.nodes, {launch.nodes}. "
            "Write a smaller one."
        )
    if launch.max_restarts == 0:
        raise ValueError(
            "min_nodes lets the ranks start again when a node dies, but launch.max_restarts is 0. "
            "Write max_restarts=3, say."
        )


def _nodes(launch: LaunchParams, slurm: SlurmParams) -> str:
    if slurm.min_nodes is None:
        return str(launch.nodes)
    return f"$((SLURM_JOB_NUM_NODES < {launch.nodes} ? SLURM_JOB_NUM_NODES : {launch.nodes}))"


def _quoted(path: Path) -> str:
    r"""Return a path as a word of an #SBATCH line, which knows quotes and \ but no newline.

    Raises:
        ValueError: It has a newline.
    """
    text = str(path)
    if "\n" in text or "\r" in text:
        raise ValueError(f"The path {text!r} has a newline: sbatch cannot. Use another directory.")
    return shlex.quote(text)
