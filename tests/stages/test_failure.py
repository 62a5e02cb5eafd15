import re

import pytest

from curitorch.cachers import TrainingRunCacher
from curitorch.external.rundir import TrainingRun
from curitorch.stages.failure import log_tail
from curitorch.stages.processes import survivors


def with_trouble(project, trouble, *, rank=1, step=7, launch=""):
    project.change("params/one.py", 'accelerator="cpu"', f'accelerator="cpu"{launch}')
    arguments = f'model_args={{"trouble": "{trouble}", "rank": {rank}, "step": {step}}},'
    project.change("params/one.py", "epochs=3,", f"epochs=3, {arguments}")


def test_a_rank_that_raises_is_named_with_its_exception_and_nothing_is_cached(project):
    with_trouble(project, "raise", launch=", processes_per_node=2")
    result = project.run()
    assert result.returncode == 1
    assert "TrainerFailed" in result.stdout
    sentence = next(line for line in result.stdout.splitlines() if "failed first" in line)
    assert "rank 1 on" in sentence
    assert "ValueError: bad batch: 'x' is $HOME" in sentence
    [path] = project.runs()
    assert str(path / "logs/attempt-0/rank-1.log") in result.stdout.replace(
        "data/", str(project.path / "data") + "/"
    )
    assert "in make_trouble" in result.stdout  # the traceback, from the log
    assert "Last good checkpoint" in result.stdout
    assert re.search(r"Last good checkpoint: .*\(step [567]\)", result.stdout), result.stdout
    assert not TrainingRun(path).is_complete
    assert not TrainingRunCacher(path).check()
    assert survivors(path) == []
    assert [a["outcome"] for a in project.attempts(path)] == ["failed"]
    report = next((project.path / "reports").glob("toy_*/index.html")).read_text()
    assert "data:image/png;base64," in report  # the curves so far
    assert "bad batch" in report  # and the log's tail


@pytest.mark.slow
def test_failed_processes_are_restarted_within_the_run_and_go_on(project):
    with_trouble(project, "die once", launch=", processes_per_node=2, max_restarts=1")
    result = project.run()
    assert result.returncode == 0, result.stdout
    assert "rank 1 on" in result.stdout
    assert "SIGKILL" in result.stdout
    [path] = project.runs()
    run = TrainingRun(path)
    assert [a["outcome"] for a in project.attempts(path)] == ["failed", "complete"]
    assert [e["step"] for e in run.events() if e["event"] == "step"] == list(range(1, 16))
    assert run.manifest.attempts == 2
    assert (path / "logs/attempt-1/rank-1.log").is_file()


@pytest.mark.slow
def test_restarts_have_an_end(project):
    with_trouble(project, "raise", rank=0, launch=", max_restarts=1")
    result = project.run()
    assert result.returncode == 1
    [path] = project.runs()
    assert [a["outcome"] for a in project.attempts(path)] == ["failed", "failed"]


def test_a_full_disk_is_said_and_the_run_goes_on_from_the_checkpoint_before(project):
    with_trouble(project, "full disk", rank=0)
    result = project.run()
    assert result.returncode == 1
    assert "No space left on device" in result.stdout
    project.change("toy/model.py", "raise OSError(28", "return  # (28")
    assert project.run().returncode == 0
    [path] = project.runs()
    events = TrainingRun(path).events()
    assert [e["step"] for e in events if e["event"] == "step"] == list(range(1, 16))


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("toy.model:Net", "toy.model:Nat", "defines no 'Nat'"),
        ("toy.model:Net", "toi.model:Net", "there is no module 'toi.model'"),
        ("toy.data:loaders", "toy.data:loader", "defines no 'loader'"),
    ],
)
def test_a_wrong_name_is_one_sentence_before_any_process_is_launched(project, old, new, sentence):
    project.change("params/one.py", old, new)
    result = project.run()
    assert result.returncode == 1
    assert sentence in result.stdout
    assert "Launching" not in result.stdout


@pytest.mark.slow
def test_a_refused_option_is_not_restarted_and_its_sentence_is_in_the_error(project):
    project.change("params/one.py", '"enable_model_summary"', '"enable_modl_summary"')
    project.change("params/one.py", 'accelerator="cpu"', 'accelerator="cpu", max_restarts=3')
    result = project.run()
    assert result.returncode == 1
    assert "'enable_modl_summary', which lightning.Trainer does not know" in result.stdout
    [path] = project.runs()
    assert len(project.attempts(path)) == 1


def test_a_stage_that_exits_is_no_success(project):
    project.change("experiments/toy.py", "    return path", "    raise SystemExit(0)")
    result = project.run()
    assert result.returncode == 1
    assert "no way to end a stage" in result.stderr


def test_the_end_of_a_log_stays_short_whatever_a_trainer_printed(tmp_path):
    log = tmp_path / "rank-0.log"
    with log.open("wb") as file:
        file.truncate(20 * 10**9)  # in no memory; a hole in the disk
        file.seek(0, 2)
        file.write(b"\n" + 50 * b"x" * 1000 + b'\n  File "net.py", line 1\nValueError: here')
    lines = log_tail(log).splitlines()
    assert lines[-2:] == ['  File "net.py", line 1', "ValueError: here"]
    assert max(map(len, lines)) <= 1000
    assert log_tail(tmp_path / "none.log") == ""
