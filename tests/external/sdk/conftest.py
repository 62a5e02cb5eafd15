"""Scripts that use the SDK, in processes of their own: by themselves, under torchrun, managed."""

import json
import os
import subprocess
import sys
import textwrap
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from curitorch.external.environment import ATTEMPT, RUN_DIR
from curitorch.external.journal import read_journal

LONG = 240  # seconds in which even a machine that stands still for a while gets it done
OURS = ("PERIFLOW_ENABLED", "WORLD_SIZE", "RANK", "LOCAL_RANK", "NODE_RANK", "NUM_NODES")


@dataclass(frozen=True)
class Scripts:
    """A folder with a script, and the run directory that a stage would give it."""

    folder: Path
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def run_dir(self) -> Path:
        return self.folder / "run"

    @property
    def saves(self) -> Path:
        return self.folder / "saves"

    def managed(self, **environment: str) -> "Scripts":
        """As a stage launches: with a run directory and a directory to save in."""
        self.saves.mkdir(exist_ok=True)
        ours = {RUN_DIR: str(self.run_dir), ATTEMPT: "0", "CKPT_DIR": str(self.saves)}
        return Scripts(self.folder, {**ours, **environment})

    def local(self, **environment: str) -> "Scripts":
        return Scripts(self.folder, environment)

    def start(self, code: str, *, ranks: int = 1, python: tuple[str, ...] = ()) -> subprocess.Popen:
        text = "import os, sys, time\nimport curitorch.external.sdk as pf\n" + textwrap.dedent(code)
        (self.folder / "script.py").write_text(text)
        command = [sys.executable, *python, "script.py"]
        if ranks > 1:
            command = [
                *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
                *(f"--nproc-per-node={ranks}", "--", "script.py"),
            ]
        kept = {k: v for k, v in os.environ.items() if k not in OURS}
        return subprocess.Popen(
            command,
            cwd=self.folder,
            env={**kept, "OMP_NUM_THREADS": "1", **self.environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, code: str, **options) -> tuple[str, str]:
        """Run a script to its end, which is good, and return its output and its complaints."""
        process = self.start(code, **options)
        out, err = process.communicate(timeout=LONG)
        assert process.returncode == 0, err
        return out, err

    def events(self, kind: str | None = None) -> list[dict]:
        found = read_journal(self.run_dir / "journal.jsonl")
        return [event for event in found if kind in (None, event["event"])]

    def sidecars(self) -> list[dict]:
        return [json.loads(p.read_text()) for p in sorted(self.run_dir.glob("checkpoints/s*.json"))]


@pytest.fixture
def scripts(tmp_path) -> Scripts:
    return Scripts(tmp_path)
