"""A disk that fills up while two ranks train, and is freed again: a gap that is counted."""

import subprocess
import sys

import pytest

from curitorch.external.journal import read_journal

SCRIPT = """
    import errno
    rank = int(os.environ["RANK"])
    pf.init(10_000)
    text = "x" * 1500  # 15 MB in all, of which 8 may wait
    filler = os.path.join(os.environ["DISK"], "filler")
    journal = os.path.join(os.environ["DISK"], "run/journal.jsonl")
    for step in range(1, 10_001):
        with pf.train_step():
            pass
        pf.metric({"loss": 1 / step, "text": text})
        if step == 500 and rank == 0:
            while not os.path.exists(journal):
                time.sleep(0.01)
            with open(filler, "wb", buffering=0) as file:
                try:
                    while True:
                        file.write(bytes(2**16))
                except OSError as error:
                    assert error.errno == errno.ENOSPC
        if step == 9_500 and rank == 0:
            os.unlink(filler)
            while b'"gap"' not in open(journal, "rb").read():  # written when all that waited is
                time.sleep(0.1)
    print(f"trained {rank}\\n", end="")
"""


@pytest.fixture
def small_disk(tmp_path):
    if not sys.platform.startswith("linux"):
        pytest.skip("needs root on Linux to mount a small tmpfs")
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=40m", "tmpfs", str(disk)]
    mounted = subprocess.run(mount, capture_output=True, check=False)
    if mounted.returncode != 0:
        pytest.skip(f"cannot mount a tmpfs here: {mounted.stderr.decode().strip()}")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


def test_training_ends_and_the_journal_says_how_much_is_missing(scripts, small_disk):
    run = small_disk / "run"
    managed = scripts.managed(DISK=str(small_disk), CURITORCH_RUN_DIR=str(run))
    output, complaints = managed.run(SCRIPT, ranks=2)
    assert sorted(output.splitlines()) == ["trained 0", "trained 1"]
    text = (run / "journal.jsonl").read_text()
    assert text.endswith("\n")
    events = read_journal(run / "journal.jsonl")
    assert len(events) == len(text.splitlines())  # none is torn
    kinds = [event["event"] for event in events]
    lost = sum(event["lost"] for event in events if event["event"] == "gap")
    assert lost > 0
    assert kinds.count("step") + kinds.count("metric") + lost == 20_000
    steps = [event["step"] for event in events if event["event"] == "step"]
    assert steps == sorted(set(steps))
    assert steps[-1] == 10_000
    assert kinds[-1] == "complete"
    assert complaints.count(f"The journal '{run}/journal.jsonl' cannot be written") == 1
    assert f"{lost} lines of the journal" in complaints
