"""The example that `make demo` runs, run for real in a copy of its folder."""

import re
import shutil
from pathlib import Path

import pytest
import torch

from curitorch.cachers import TrainingRun


def printed_paths(output: str) -> dict[str, Path]:
    found = re.findall(r"^ *(report|model|checkpoints): (.+)$", output, re.MULTILINE)
    return {name: Path(path) for name, path in found}


def the_experiment(processes: list[dict]) -> dict:
    [found] = [each for each in processes if "curitorch.stages.run" in each["argv"]]
    return found


def a_copy(project, folder):
    """Others count what lies in the shared one."""
    return type(project)(shutil.copytree(project.path, folder / "digits", symlinks=True))


def test_two_processes_train_a_classifier_of_real_images(digits_project):
    project, first = digits_project
    assert first.returncode == 0, first.output
    assert first.output.count("Launching:") == 1
    accuracy = float(re.search(r"test/acc (\d\.\d+)", first.output)[1])
    assert accuracy >= 0.95
    paths = printed_paths(first.output)
    assert set(paths) == {"report", "model", "checkpoints"}
    assert all(path.exists() for path in paths.values())
    assert all(path.is_relative_to(project.path) for path in paths.values())
    run = TrainingRun(paths["model"].parent)
    assert run.is_complete
    assert [attempt.world_size for attempt in run.attempts()] == [2]
    assert {path.name for path in run.layout.logs(0).glob("*.log")} >= {"rank-0.log", "rank-1.log"}


def test_the_report_has_the_curves_of_loss_and_accuracy_inside(digits_project):
    _, first = digits_project
    report = printed_paths(first.output)["report"].read_text()
    for family in ("loss", "acc"):
        [image] = re.findall(rf'<img alt="{family}" src="data:image/png;base64,([^"]+)"', report)
        assert len(image) > 10_000
    run = TrainingRun(printed_paths(first.output)["model"].parent)
    assert {"train_loss", "train_acc", "val/loss", "val/acc"} <= set(run.metrics().columns)
    for word in ("val/loss", "test/acc", "step-00000300/model.ckpt", "torch.distributed.run"):
        assert word in report


def test_the_experiment_itself_never_imports_torch_and_the_trainers_do(digits_project):
    _, first = digits_project
    assert "torch" not in the_experiment(first.processes)["modules"]
    trainers = [each for each in first.processes if "curitorch.external.rank" in each["argv"]]
    assert any("lightning.pytorch" in each["modules"] for each in trainers)


def test_a_second_run_trains_nothing_and_imports_no_torch(digits_project, tmp_path):
    trained, first = digits_project
    project = a_copy(trained, tmp_path)
    again = project.run("digits", "-p", "quick", witnesses=tmp_path / "second")
    assert again.returncode == 0, again.output
    assert "Launching:" not in again.output
    assert "Evaluating:" not in again.output
    [process] = again.processes
    assert "curifactory" in process["modules"]
    heavy = {"torch", "lightning", "pytorch_lightning", "sklearn"}
    assert heavy.isdisjoint(process["modules"])
    before, after = printed_paths(first.output), printed_paths(again.output)
    places = [
        {name: path.relative_to(of.path) for name, path in paths.items()}
        for of, paths in ((trained, before), (project, after))
    ]
    assert places[0]["model"] == places[1]["model"]
    assert places[0]["report"] != places[1]["report"]
    assert 'src="data:image/png;base64,' in after["report"].read_text()


@pytest.mark.slow
def test_the_lean_loop_trains_the_same_classifier(digits_project, tmp_path):
    trained, first = digits_project
    project = a_copy(trained, tmp_path)
    lean = project.run("digits", "-p", "lean", witnesses=tmp_path / "lean")
    assert lean.returncode == 0, lean.output
    one, other = (re.search(r"test/acc (\d\.\d+)", each.output)[1] for each in (first, lean))
    assert float(one) == pytest.approx(float(other), abs=0.005)  # an image of the 261
    runs = [TrainingRun(printed_paths(o)["model"].parent) for o in (first.output, lean.output)]
    for name, one in weights(runs[0]).items():
        assert torch.allclose(one, weights(runs[1])[name], atol=1e-4), name
    assert runs[1].manifest.step == runs[0].manifest.step
    for ran, title in ((first, "Lightning&#x27;s Trainer"), (lean, "lean loop")):
        assert f"<b>{title}</b> engine" in printed_paths(ran.output)["report"].read_text()


def weights(run: TrainingRun) -> dict[str, torch.Tensor]:
    return torch.load(run.model_path, weights_only=True)["state_dict"]
