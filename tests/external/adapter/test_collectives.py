"""What two ranks of a lean fit tell each other in a step: their gradients, as plain DDP does."""

import json
from pathlib import Path

import pytest

from tests.external.adapter.torchrun import torchrun


@pytest.mark.slow
def test_a_step_has_no_collective_besides_ddps(tmp_path):
    done = torchrun(Path(__file__).with_name("collectives.py"), tmp_path)
    assert done.returncode == 0, (done.stdout + done.stderr)[-6000:]
    counted = json.loads((tmp_path / "counted.json").read_text())
    assert counted["raw"] == counted["lean"] == [1] * 15
    assert counted["talking"] == [2] * 15  # so what is counted is all there is
