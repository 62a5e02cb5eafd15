"""exact="rank" in three processes, whose sums have an order: resumed bitwise as not stopped."""

import pytest

from tests.external.adapter import world_fits as fits
from tests.external.adapter.world_plan import launch

CASES = ("workers", "a parameter that not every grain uses", "clipping", "plateau")
RANK = {"exact": "rank", "batch_size": 12}  # the last batch of 46 samples has 10


def plan(stops):
    """Return for each case: the whole fit, and after each stop what went on from it."""
    made = []
    for n, name in enumerate(CASES):
        made.append({"case": name, "to": f"{n}-whole", "options": RANK})
        for stop in stops:
            made += [
                {"case": name, "to": f"{n}-{stop}", "steps": stop, "options": RANK},
                {
                    "case": name, "from": f"{n}-{stop}", "to": f"{n}-{stop}-on", "options": RANK,
                },
            ]  # fmt: skip
    return made


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_three_ranks_resume_bitwise_though_ddp_lays_its_buckets_out_anew(tmp_path):
    stops = (3, 4)  # of eight: within an epoch, and at its end
    launch(plan(stops), tmp_path, 3)
    for n, name in enumerate(CASES):
        whole = fits.outcome(tmp_path / f"{n}-whole")
        assert whole["step"] == 8
        for stop in stops:
            resumed = fits.outcome(tmp_path / f"{n}-{stop}-on")
            assert fits.same(resumed, whole), f"{name}, stopped at {stop}"
