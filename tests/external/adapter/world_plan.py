"""The fits of `world_fits`, in any number of processes."""

import json

from tests.external.adapter import world_fits
from tests.external.adapter.torchrun import torchrun


def launch(plan, folder, processes):
    """Do the fits of a plan in so many processes."""
    path = folder / f"plan-{len([*folder.glob('plan-*')])}.json"
    path.write_text(json.dumps(plan))
    done = torchrun(world_fits.__file__, path, processes=processes, seconds=500)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-5000:]
