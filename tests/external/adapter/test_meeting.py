"""Processes that meet after an error: all of them, for the same step, each time anew."""

import threading

import pytest
import torch.distributed as dist

from curitorch.external.adapter import meeting


@pytest.fixture
def come(monkeypatch):
    """Lets ranks of two come, each in a thread of its own; returns what they found, by rank."""
    store, here = dist.HashStore(), threading.local()
    monkeypatch.setattr(dist.distributed_c10d, "_get_default_store", lambda: store)
    monkeypatch.setattr(meeting.dist, "get_world_size", lambda: 2)
    monkeypatch.setattr(meeting.dist, "get_rank", lambda: here.rank)
    monkeypatch.setattr(meeting.dist, "new_group", lambda **options: "a group")

    def come(steps, *, seconds):
        found = {}
        monkeypatch.setattr(meeting, "SECONDS", seconds)

        def one(rank, step):
            here.rank = rank
            try:
                found[rank] = meeting.meet(step).group
            except meeting.NotMet as error:
                found[rank] = str(error)

        threads = [threading.Thread(target=one, args=each) for each in steps.items()]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return found

    return come


def test_all_meet_as_often_as_they_fail_together(come):
    for step in (4, 9):
        assert come({0: step, 1: step}, seconds=60.0) == {0: "a group", 1: "a group"}


def test_who_came_another_time_is_not_there(come):
    come({0: 4, 1: 4}, seconds=60.0)
    assert "ranks [1] did not come within 1 seconds" in come({0: 4}, seconds=1.0)[0]


def test_those_of_other_steps_do_not_meet(come):
    for steps in ({0: 4, 1: 5}, {0: -1, 1: -1}):
        found = come(steps, seconds=60.0)
        assert all(f"theirs are of steps {[*steps.values()]}" in found[rank] for rank in (0, 1))


def test_a_process_that_is_gone_through_which_they_met_is_said(come, monkeypatch):
    class Gone:
        def __getattr__(self, name):
            raise RuntimeError("Connection reset by peer")

    monkeypatch.setattr(dist.distributed_c10d, "_get_default_store", Gone)
    assert "the process through which they find each other is gone" in come({0: 4}, seconds=1.0)[0]
