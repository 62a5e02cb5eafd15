import json
import shlex
import subprocess

import pytest

from curitorch.cachers import TrainingRunCacher
from curitorch.external.rundir import TrainingRun


def test_an_experiment_trains_in_processes_of_their_own_and_once_only(project):
    project.change("params/one.py", 'accelerator="cpu"', 'accelerator="cpu", processes_per_node=2')
    first = project.run()
    assert first.returncode == 0, first.stdout + first.stderr
    [path] = project.runs()
    run = TrainingRun(path)
    assert run.manifest.step == 15
    assert run.manifest.epoch == 3
    assert [e["step"] for e in run.events() if e["event"] == "step"] == list(range(1, 16))
    metrics = run.metrics()
    assert {"train_loss", "val/loss"} <= set(metrics.columns)
    assert metrics["train_loss"].notna().sum() == 15
    assert {p.name for p in (path / "logs/attempt-0").iterdir()} >= {
        *("rank-0.log", "rank-1.log", "rank-0.json", "rank-1.json", "launcher.log"),
    }
    [attempt] = project.attempts(path)
    assert attempt["outcome"] == "complete"
    assert attempt["world_size"] == 2
    assert [c.step for c in run.checkpoints()] == [5, 10, 15]
    assert run.checkpoints()[-1].samples == 120

    # The live line, without a terminal, is plain lines; the command can be pasted.
    assert "one: epoch 3/3 · step 15/15" in first.stdout
    assert run.command in first.stdout
    words = shlex.split(run.command)
    assert words[1:3] == ["-m", "torch.distributed.run"]
    report = next((project.path / "reports").glob("toy_*/index.html")).read_text()
    assert report.count("data:image/png;base64,") == 1  # the family of train_loss and val/loss
    assert "step-00000015/model.ckpt" in report

    again = project.run()
    assert again.returncode == 0
    assert "Launching" not in again.stdout
    assert len(project.attempts(path)) == 1
    cached = next((project.path / "reports").glob("toy_2_*/index.html")).read_text()
    assert "data:image/png;base64," in cached  # the curves are there on a cached run too


@pytest.mark.slow
def test_the_printed_command_runs_by_hand_and_finds_the_run_complete(project):
    assert project.run().returncode == 0
    [path] = project.runs()
    pasted = subprocess.run(
        TrainingRun(path).command,
        shell=True,
        cwd=project.path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert pasted.returncode == 0, pasted.stderr
    assert "is complete: nothing to train" in pasted.stderr


@pytest.mark.slow
def test_hardware_is_not_in_the_hash_and_the_batch_stays_what_it_was(project):
    assert project.run().returncode == 0
    project.change("params/one.py", 'accelerator="cpu"', 'accelerator="cpu", processes_per_node=2')
    again = project.run()
    assert again.returncode == 0
    assert "Launching" not in again.stdout
    assert len(project.runs()) == 1


@pytest.mark.slow
@pytest.mark.timeout(900)  # three experiments
def test_overwrite_trains_afresh_in_an_emptied_directory(project):
    assert project.run().returncode == 0
    [path] = project.runs()
    (path / "of the older run").write_text("")
    for flags in (["--overwrite"], ["--overwrite-stage", "train"]):
        (path / "of the older run").write_text("")
        assert project.run(*flags).returncode == 0
        assert not (path / "of the older run").exists()
        assert len(project.attempts(path)) == 1
        events = TrainingRun(path).events()
        assert [e["step"] for e in events if e["event"] == "step"] == list(range(1, 16))


@pytest.mark.slow
def test_the_same_records_twice_under_overwrite_train_once(project):
    project.change("experiments/toy.py", "in param_sets:", "in [*param_sets, *param_sets]:")
    result = project.run("--overwrite")
    assert result.returncode == 0, result.stdout
    assert result.stdout.count("Launching") == 1


def test_dry_launches_nothing_and_map_and_paths_list_the_outputs(project):
    for flag in ("--dry", "--dry-cache", "--map", "--paths"):
        result = project.run(flag)
        assert result.returncode == 0, result.stdout
        assert "Launching" not in result.stdout
        assert project.runs() == []
    assert "_train_run" in result.stdout
    assert "_train_run_metadata.json" in result.stdout
    assert "Dry, not launched" in project.run("--dry").stdout


@pytest.mark.slow
def test_store_full_archives_the_whole_run_uncached_and_cached(project):
    for _ in range(2):
        result = project.run("--store-full")
        assert result.returncode == 0, result.stdout
    archives = sorted((project.path / "data/runs").glob("*/artifacts/*_train_run"))
    assert len(archives) == 2
    for archive in archives:
        assert TrainingRunCacher(archive).load().is_complete
        assert [c.step for c in TrainingRun(archive).checkpoints()] == [5, 10, 15]


@pytest.mark.slow
def test_lazy_ignore_lazy_and_no_dag_give_the_same_run(project):
    for number, flag in enumerate(("--lazy", "--ignore-lazy", "--no-dag", "--lazy")):
        result = project.run(flag)
        assert result.returncode == 0, result.stdout
        assert ("Launching" in result.stdout) == (number == 0)


@pytest.mark.slow
def test_under_quiet_there_is_no_line(project):
    result = project.run("--quiet")
    assert result.returncode == 0
    assert result.stdout == ""


@pytest.mark.slow
@pytest.mark.timeout(900)  # many trainings
def test_several_records_interleaved_keep_their_own_runs(project):
    project.change("params/one.py", "return [", "sets = [")
    project.write(
        {
            "experiments/toy.py": (project.path / "experiments/toy.py")
            .read_text()
            .split("def run")[0]
            + """
def run(param_sets, manager):
    records = [make(cf.Record(manager, params)) for params in param_sets]
    for record in records:
        train(record)
    copy = records[0].make_copy(param_sets[0])
    use(copy)
    for record in records:
        use(record)
    compare(cf.Record(manager, None), records)

@cf.stage(["run"], ["used"])
def use(record, run):
    print("USED", record.params.name, run.path.name)
    return run

@cf.aggregate(["run"], ["all"])
def compare(record, records, run):
    print("ALL", sorted(len(r.metrics()) for r in run.values()))
    return 1
"""
        }
    )
    with (project.path / "params/one.py").open("a") as file:
        file.write(
            "    import copy, dataclasses\n"
            "    other = copy.deepcopy(sets[0])\n"
            "    other.name = 'two'\n"
            "    other.trainer = dataclasses.replace(other.trainer, seed=5, epochs=2)\n"
            "    return [*sets, other]\n"
        )
    result = project.run()
    assert result.returncode == 0, result.stdout + result.stderr
    assert len(project.runs()) == 2
    assert "ALL [10, 15]" in result.stdout
    used = [line.split() for line in result.stdout.splitlines() if line.startswith("USED")]
    assert [name for _, name, _ in used] == ["one", "one", "two"]  # the first is the copy's
    assert used[0][2] == used[1][2] != used[2][2]

    parallel = project.run("--parallel", "2", "--overwrite")
    assert parallel.returncode == 0, parallel.stdout + parallel.stderr
    for path in project.runs():
        assert len(project.attempts(path)) == 1  # not once in the child and again in the parent
        assert json.loads((path / "manifest.json").read_text())["attempts"] == 1


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("launch=LaunchParams(", "launch=dict(", "setting 'launch' is {'accelerator': 'cpu'}, exp"),
        ("trainer=TrainerParams(", "trainer=dict(", "expected TrainerParams. Write TrainerParams("),
    ],
)
def test_settings_of_another_kind_are_one_sentence(project, old, new, said):
    project.change("params/one.py", old, new)
    result = project.run()
    assert result.returncode == 1
    assert said in " ".join((result.stdout + result.stderr).split())
    assert not project.runs()


@pytest.mark.parametrize(
    ("name", "found"), [("lr/0.1", "a '/' in it"), ("n" * 245, "259 bytes with the stage's")]
)
def test_a_name_that_no_report_can_have_is_refused_before_the_training(project, name, found):
    project.change("params/one.py", 'name="one"', f'name="{name}"')
    result = project.run()
    assert result.returncode == 1
    said = " ".join((result.stdout + result.stderr).split())
    assert f"The parameter set's name '{name}' has {found}, and curifactory" in said
    assert "Launching" not in result.stdout
    assert not project.runs()
