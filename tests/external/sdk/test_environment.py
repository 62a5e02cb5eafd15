"""Where a process stands, as its environment says; PeriFlow's cases of ranks and machines."""

from pathlib import Path

import pytest

from curitorch.external.environment import ATTEMPT, RUN_DIR, Ranks
from curitorch.external.sdk.environment import announce, place
from curitorch.external.sdk.errors import PeriFlowError, PeriFlowInternalError
from curitorch.params import CheckpointParams

FOUR_MACHINES = {
    "PERIFLOW_ENABLED": "1",
    **{"WORLD_SIZE": "16", "NODE_RANK": "1", "NUM_NODES": "4", "PROCESSED_ITERS": "4"},
}


@pytest.mark.parametrize(("rank", "local_rank"), [(4, 0), (5, 1), (15, 3)])
def test_periflows_variables_give_the_ranks_on_each_machine(rank, local_rank):
    found = place({**FOUR_MACHINES, "RANK": str(rank), "CKPT_DIR": "/data/ckpt"})
    assert found.ranks == Ranks(rank, local_rank, world_size=16, local_world_size=4)
    assert found.ranks.nodes == 4
    assert found.processed == 4
    assert found.checkpoints == Path("/data/ckpt")
    assert (found.run, found.attempt) == (Path("/data/ckpt.run"), None)


def test_nothing_of_it_counts_unless_it_is_enabled():
    for value in ("0", "true", "", "yes"):
        found = place({**FOUR_MACHINES, "PERIFLOW_ENABLED": value})
        assert (found.run, found.processed) == (None, 0)


@pytest.mark.parametrize("name", ["WORLD_SIZE", "NODE_RANK", "NUM_NODES", "PROCESSED_ITERS"])
def test_each_variable_is_needed(name):
    with pytest.raises(PeriFlowInternalError, match=f"'{name}' should be set in cloud mode"):
        place({key: value for key, value in FOUR_MACHINES.items() if key != name})


@pytest.mark.parametrize("nodes", ["3", "0"])
def test_machines_have_the_same_number_of_processes(nodes):
    with pytest.raises(PeriFlowError, match=f"16 is not divisible by {nodes}"):
        place({**FOUR_MACHINES, "NUM_NODES": nodes})


def test_what_a_stage_announces_comes_round_and_wins_over_periflows_variables(tmp_path):
    policy = CheckpointParams(keep=7, store="s3", store_settings="root=s3://b/{run}/")
    told = announce(folder=tmp_path / "a b", processed=12, policy=policy)
    found = place({**FOUR_MACHINES, **told, RUN_DIR: str(tmp_path), ATTEMPT: "3", "RANK": "1"})
    assert (found.run, found.attempt, found.processed) == (tmp_path, 3, 12)
    assert found.checkpoints == tmp_path / "a b"
    assert found.policy == policy
    assert found.ranks.rank == 1
