import json
import os
import signal
import subprocess
import sys

import pytest

from curitorch.external import leash
from curitorch.external.environment import ATTEMPT, RUN_DIR, for_trainers, ranks
from curitorch.external.rank_report import RankError, read_reports


@pytest.fixture
def rank(tmp_path):
    def run(*words, managed=True, rank=1):
        environment = {**os.environ, "RANK": str(rank), "WORLD_SIZE": "2"}
        if managed:
            environment |= {RUN_DIR: str(tmp_path / "run"), ATTEMPT: "3"}
        return subprocess.run(
            [sys.executable, "-m", "curitorch.external.rank", *words],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )

    return run


def test_a_programs_whole_output_is_in_its_ranks_log_in_the_order_printed(tmp_path, rank):
    (tmp_path / "p.py").write_text(
        "import os, subprocess, sys\n"
        "print('out', flush=True); print('err', file=sys.stderr)\n"
        "subprocess.run(['echo', 'from a child'])\n"
        "print(sys.argv, __name__)\n"
    )
    result = rank("p.py", "--x", "a b")
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    log = (tmp_path / "run/logs/attempt-3/rank-1.log").read_text()
    assert log == "out\nerr\nfrom a child\n['p.py', '--x', 'a b'] __main__\n"
    [report] = read_reports(tmp_path / "run/logs/attempt-3")
    assert (report.rank, report.exit_code, report.error) == (1, 0, None)


@pytest.mark.parametrize(
    ("program", "exit_code", "error"),
    [
        ("raise ValueError('bad')", 1, ("ValueError", "bad")),
        ("import sys; sys.exit(3)", 3, ("SystemExit", "3")),
        ("import sys; sys.exit('because')", 1, ("SystemExit", "because")),
        ("import sys; sys.exit(0)", 0, None),
        ("raise KeyboardInterrupt", 1, ("KeyboardInterrupt", "")),
    ],
)
def test_how_a_program_ended_is_recorded(tmp_path, rank, program, exit_code, error):
    (tmp_path / "p.py").write_text(program)
    result = rank("p.py")
    assert (result.returncode == 0) == (exit_code == 0)
    [report] = read_reports(tmp_path / "run/logs/attempt-3")
    assert report.exit_code == exit_code
    assert (report.error and (report.error.type, report.error.message)) == error


def test_a_killed_program_has_no_end(tmp_path, rank):
    (tmp_path / "p.py").write_text("import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    assert rank("p.py").returncode == -9
    [report] = read_reports(tmp_path / "run/logs/attempt-3")
    assert report.ended is None


def test_a_crash_of_the_interpreter_leaves_its_python_stack(tmp_path, rank):
    (tmp_path / "p.py").write_text("def sink():\n    import ctypes; ctypes.string_at(0)\nsink()")
    assert rank("p.py").returncode == -signal.SIGSEGV
    assert "in sink" in (tmp_path / "run/logs/attempt-3/rank-1.log").read_text()


def test_without_a_stage_a_program_runs_as_python_would_run_it(tmp_path, rank):
    (tmp_path / "pkg").mkdir()
    (tmp_path / "pkg/__main__.py").write_text("import sys; print(sys.argv[1:])")
    assert rank("-m", "pkg", "1", managed=False).stdout == "['1']\n"
    assert "expected '-m MODULE" in rank(managed=False).stderr
    assert os.listdir(tmp_path) == ["pkg"]


def test_a_torn_report_is_left_out(tmp_path):
    (tmp_path / "rank-0.json").write_text("{")
    (tmp_path / "rank-1.json").write_text(json.dumps({"schema": 1}))
    assert read_reports(tmp_path) == []


@pytest.mark.parametrize(
    ("message", "victim"),
    [
        ("[gloo/transport/tcp/pair.cc:553] Connection closed by peer [127.0.0.1]:1", True),
        ("Connection reset by peer", True),
        ("NCCL communicator was aborted on rank 1", True),
        ("bad batch", False),
        ("connection refused by my own database class", True),
    ],
)
def test_a_lost_connection_is_what_victims_see(message, victim):
    assert RankError(type="RuntimeError", message=message, traceback="").is_victim is victim


def test_trainers_get_no_ranks_of_another_job(tmp_path):
    environment = for_trainers(
        {"RANK": "3", "TORCHELASTIC_RUN_ID": "x", "MASTER_ADDR": "y", "HOME": "/h", "A": "old"},
        run=tmp_path,
        attempt=2,
        extra={"A": "new"},
    )
    assert environment == {"HOME": "/h", "A": "new", RUN_DIR: str(tmp_path), ATTEMPT: "2"}
    assert ranks({}).world_size == 1
    assert ranks({"RANK": "5", "WORLD_SIZE": "8", "LOCAL_WORLD_SIZE": "4"}).nodes == 2


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the leash needs Linux's prctl")
def test_a_process_on_a_leash_is_told_when_its_parent_is_killed(tmp_path):
    child = (
        "import signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *a: (open(sys.argv[1], 'w').close(), sys.exit()))\n"
        "print('ready', flush=True); time.sleep(200)\n"
    )
    parent = (
        "import os, subprocess, sys, time\n"
        f"subprocess.Popen([sys.executable, '-I', '-S', {leash.__file__!r}, str(os.getpid()),"
        f" sys.executable, '-c', {child!r}, sys.argv[1]])\ntime.sleep(200)\n"
    )
    told = tmp_path / "told"
    process = subprocess.Popen(
        [sys.executable, "-c", parent, str(told)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "ready\n"
    process.kill()
    process.communicate()  # until the child has ended as well, which has the pipe, too
    assert told.exists()
