"""What two ranks of a lean fit tell each other in a step: their gradients, as plain DDP does."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_a_step_has_no_collective_besides_ddps(tmp_path):
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
        str(Path(__file__).with_name("collectives.py")), str(tmp_path),
    ]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=240)
    assert done.returncode == 0, (done.stdout + done.stderr)[-6000:]
    counted = json.loads((tmp_path / "counted.json").read_text())
    assert counted["raw"] == counted["lean"] == [1] * 15
    assert counted["talking"] == [2] * 15  # so what is counted is all there is
