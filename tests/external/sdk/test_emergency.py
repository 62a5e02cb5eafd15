"""The step of an emergency save, agreed by ranks that are not in step with each other."""

import os
import random
import signal
import threading
import time

import pytest

from curitorch.external.sdk.emergency import Emergency, read_request, request


class Rank:
    """One rank whose script asks after each step, in a thread of its own, and sometimes dawdles."""

    def __init__(self, folder, rank, ranks, *, patience=100.0, barrier=None, seed=0):
        self.step = 0
        self.saved: list[int] = []
        self.emergency = Emergency(
            folder, rank=rank, world_size=ranks, step=lambda: self.step, patience=patience
        )
        self._barrier = barrier
        self._random = random.Random(seed * 100 + rank)
        self._thread = threading.Thread(target=self._train)

    def start(self):
        self.emergency.listen()
        self._thread.start()

    def end(self):
        self._thread.join(200)
        assert not self._thread.is_alive()
        self.emergency.close()

    def _train(self):
        end = time.monotonic() + 100  # a rank may have trained for long when it is asked
        while time.monotonic() < end:
            self.step += 1
            if self.emergency.is_over(self.step):
                self.step -= 1
                return
            time.sleep(self._random.random() / 300)
            if self._barrier is not None:
                self._barrier.wait(100)  # the collective of every step
            if self.emergency.is_due(self.step):
                self.saved.append(self.step)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("lockstep", [True, False], ids=["with collectives", "without"])
def test_all_ranks_save_once_at_the_same_step_and_end_after_it(tmp_path, lockstep, seed):
    barrier = threading.Barrier(3) if lockstep else None
    ranks = [Rank(tmp_path, r, 3, barrier=barrier, seed=seed) for r in range(3)]
    for rank in ranks:
        rank.start()
    while ranks[0].step < 20:
        time.sleep(0.001)
    ranks[seed % 3].emergency.reason = "SIGTERM"  # what the handler does
    for rank in ranks:
        rank.end()
    [step] = {tuple(rank.saved) for rank in ranks}
    assert len(step) == 1
    assert {rank.step for rank in ranks} == {step[0]}
    assert {rank.emergency.reason for rank in ranks} == {"SIGTERM"}


def test_a_request_by_file_reaches_all_ranks(tmp_path):
    ranks = [Rank(tmp_path, r, 2) for r in range(2)]
    for rank in ranks:
        rank.start()
    request(tmp_path, "preemption")
    for rank in ranks:
        rank.end()
    assert ranks[0].saved == ranks[1].saved
    assert len(ranks[0].saved) == 1
    assert {rank.emergency.reason for rank in ranks} == {"preemption"}
    assert read_request(tmp_path / "elsewhere") is None


def test_asked_in_a_step_it_is_the_next_one_if_this_one_was_answered(tmp_path):
    now = [1]
    emergency = Emergency(tmp_path, rank=0, world_size=1, step=lambda: now[0])
    emergency.listen()
    assert emergency.is_due(1) is False
    request(tmp_path, "stage")
    while emergency.step is None:
        time.sleep(0.01)
    assert emergency.is_due(1) is False
    assert not emergency.is_over(2)
    now[0] = 2
    assert emergency.is_due(2) is True
    assert emergency.is_over(3)
    emergency.close()
    emergency.give_back_signals()


def test_a_rank_that_does_not_take_part_is_given_up_with_a_sentence(tmp_path, caplog):
    alone = Rank(tmp_path, 0, 2, patience=0.3)
    alone.start()
    request(tmp_path, "stage")
    alone.end()
    assert len(alone.saved) == 1
    assert "Not all of 2 ranks agreed" in caplog.text


def test_a_rank_that_has_ended_is_not_waited_for(tmp_path):
    ended, lasting = Rank(tmp_path, 0, 2), Rank(tmp_path, 1, 2, patience=1000)
    ended.emergency.listen()
    ended.step = 3
    ended.emergency.close()
    lasting.start()
    lasting.emergency.reason = "SIGTERM"
    lasting.end()
    assert len(lasting.saved) == 1


def test_while_nobody_asks_nothing_is_written_and_a_step_costs_next_to_nothing(tmp_path):
    emergency = Emergency(tmp_path / "not made", rank=0, world_size=2, step=lambda: 0)
    emergency.listen()
    began = time.thread_time()
    for step in range(10_000):
        emergency.is_over(step)
        emergency.is_due(step)
    assert time.thread_time() - began < 0.5
    assert not (tmp_path / "not made").exists()
    emergency.give_back_signals()


def test_the_scripts_own_handler_is_called_as_well_and_comes_back(tmp_path):
    called = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: called.append(number))
    try:
        emergency = Emergency(tmp_path, rank=0, world_size=1, step=lambda: 0)
        emergency.listen()
        os.kill(os.getpid(), signal.SIGTERM)
        assert called == [signal.SIGTERM]
        assert emergency.reason == "SIGTERM"
        emergency.close()
        emergency.give_back_signals()
        os.kill(os.getpid(), signal.SIGTERM)
        assert called == [signal.SIGTERM] * 2
        assert emergency.signals == 1
    finally:
        signal.signal(signal.SIGTERM, before)


LOOP = """
    import atexit, torch, torch.distributed as dist
    dist.init_process_group("gloo")
    atexit.register(dist.destroy_process_group)
    rank = dist.get_rank()
    pf.init(100_000)
    print(f"pid {rank} {os.getpid()}", flush=True)
    step = 0
    while True:
        with pf.train_step():
            step += 1
            t = torch.ones(1); dist.all_reduce(t)
            time.sleep(0.002)
        if pf.is_emergency_save():
            print(f"save {rank} {step}", flush=True)
            if rank == 0:
                open(os.environ["CKPT_DIR"] + "/model.pt", "w").write(f"weights of {step}")
            open(os.environ["CKPT_DIR"] + f"/shard-{rank}.pt", "w").write(f"{rank} of {step}")
            pf.upload_checkpoint()
"""


@pytest.mark.parametrize("victim", ["rank 1", "torchrun"])
def test_sigterm_to_one_rank_or_to_torchrun_saves_both_ranks_at_one_step(scripts, victim):
    managed = scripts.managed()
    process = managed.start(LOOP, ranks=2)
    pids = {}
    while len(pids) < 2:
        word, rank, pid = process.stdout.readline().split()
        assert word == "pid"
        pids[rank] = int(pid)
    while not managed.events("step"):
        assert process.poll() is None
        time.sleep(0.02)
    os.kill(pids["1"] if victim == "rank 1" else process.pid, signal.SIGTERM)
    out, err = process.communicate(timeout=200)
    assert process.returncode != 0
    saves = sorted(line.split() for line in out.splitlines() if line.startswith("save"))
    assert [rank for _, rank, _ in saves] == ["0", "1"], out + err
    assert saves[0][2] == saves[1][2]
    step = int(saves[0][2])
    [sidecar] = managed.sidecars()
    assert sidecar["step"] == step
    assert sidecar["details"]["save_type"] == "EMERGENCY"
    folder = managed.run_dir / f"checkpoints/step-{step:08d}"
    assert {p.name: p.read_text() for p in folder.iterdir()} == {
        "model.pt": f"weights of {step}",
        "shard-0.pt": f"0 of {step}",
        "shard-1.pt": f"1 of {step}",
    }
    last = managed.events()[-1]
    assert (last["event"], last["step"], last["reason"]) == ("stop", step, "SIGTERM")
    assert "exitcode  : 143" in err or victim == "torchrun"


def test_a_script_that_never_asks_is_ended_after_the_agreed_step(scripts):
    managed = scripts.managed()
    process = managed.start("""
        pf.init()
        print("ready", flush=True)
        while True:
            with pf.train_step():
                time.sleep(0.01)
    """)
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGUSR1)  # Slurm's notice
    process.communicate(timeout=200)
    assert process.returncode == 143
    assert managed.events()[-1]["reason"] == "SIGUSR1"


def test_a_forked_worker_can_be_ended_by_sigterm(scripts):
    output, _ = scripts.managed().run("""
        import multiprocessing
        pf.init()
        context = multiprocessing.get_context("fork")
        ready = context.Event()
        def work():
            ready.set()
            time.sleep(600)
        worker = context.Process(target=work, daemon=True)
        worker.start()
        ready.wait()
        worker.terminate()
        worker.join(200)
        print(worker.exitcode)
    """)
    assert output == "-15\n"


def test_locally_signals_do_what_they_did(scripts):
    process = scripts.local().start("pf.init()\nprint('ready', flush=True)\ntime.sleep(600)")
    assert process.stdout.readline() == "ready\n"
    process.terminate()
    assert process.wait(200) == -signal.SIGTERM
