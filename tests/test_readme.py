"""README and docs, done: their files are written, their commands and code run, in their order."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from curitorch.cachers import TrainingRun
from curitorch.external.adapter.support_matrix import filled

REPOSITORY = Path(__file__).resolve().parents[1]
BLOCK = re.compile(r"(?:^`(?P<file>[^`\n]+)`\n)?^```(?P<kind>\w+)\n(?P<text>.*?)^```$", re.M | re.S)
DOCUMENTS = [
    REPOSITORY / name
    for name in (
        "README.md",
        "docs/trainers.md",
        "docs/run-directory.md",
        "docs/stores.md",
        "docs/sdk.md",
        "docs/autopatch.md",
        "docs/exact-resume.md",
        "docs/slurm.md",
        "docs/adapter.md",
        "docs/notebook.md",
        "docs/logger.md",
    )
]


def follow(document: Path, folder: Path) -> str:
    """Do what `document` says in `folder` and return all output.

    A block below a file's name is written there; bash and python without one are run.
    """
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {**os.environ, "PATH": path, "OMP_NUM_THREADS": "1"}
    output = ""
    for block in BLOCK.finditer(document.read_text()):
        if block["file"] is not None:
            target = folder / block["file"]
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(block["text"])
        elif block["kind"] in ("bash", "python"):
            start = ["bash", "-ec"] if block["kind"] == "bash" else [sys.executable, "-c"]
            done = subprocess.run(
                [*start, block["text"]],
                cwd=folder,
                env=environment,
                capture_output=True,
                text=True,
                check=False,
            )
            output += done.stdout + done.stderr
            assert done.returncode == 0, output
    return output


@pytest.fixture(scope="module")
def followed(made_once) -> tuple[Path, str]:
    """Return the project that the README makes, and its output."""

    def make(folder):
        (folder / "a project").mkdir()
        return follow(DOCUMENTS[0], folder / "a project")

    folder, output = made_once("readme", make)
    return folder / "a project", output


@pytest.fixture
def folder(followed, tmp_path) -> Path:
    """Return a copy of the README's project, for one of the docs to go on in."""
    return Path(shutil.copytree(followed[0], tmp_path / "a project", symlinks=True))


def test_the_first_experiment_trains_and_says_where_the_model_is(followed):
    folder, output = followed
    model = folder / re.search(r"^The model: (.+)$", output, re.MULTILINE)[1]
    run = TrainingRun(model.parent)
    assert run.is_complete
    assert run.manifest.epoch == 20
    assert [attempt.world_size for attempt in run.attempts()] == [2]
    assert [checkpoint.epoch for checkpoint in run.checkpoints()] == [10, 15, 20]
    report = (folder / "reports/_latest/index.html").read_text()
    assert "data:image/png;base64," in report


def test_the_trainer_of_ten_lines_and_the_one_by_hand_leave_complete_runs(followed):
    folder, _ = followed
    own, by_hand = TrainingRun(folder / "runs/own"), TrainingRun(folder / "runs/by_hand")
    assert own.manifest.epoch == 5
    assert by_hand.manifest.epoch == 20
    assert own.checkpoints()[-1].world_size == 1
    assert by_hand.checkpoints()[-1].world_size == 2
    record = json.loads((folder / "runs/own/model_metadata.json").read_text())
    assert (record["extra"]["type"], record["extra"]["arguments"]) == ("Net", {"width": 16})


def test_the_same_training_by_hand_and_by_a_stage_is_the_same(followed):
    import torch

    folder, _ = followed
    [staged] = folder.glob("data/cache/*_run/model.ckpt")
    weights = [
        torch.load(path, weights_only=True)["state_dict"]
        for path in (staged, folder / "runs/by_hand/model.ckpt")
    ]
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_the_notebooks_lines_give_the_class_the_loss_and_a_checkpoint(followed):
    _, output = followed
    name, loss, path = output.strip().splitlines()[-1].split()
    assert name == "Net"
    assert float(loss) < 0.1
    assert Path(path).parts[-2:] == ("step-00000160", "model.ckpt")


@pytest.mark.slow
def test_the_stage_body_of_ones_own_trains_with_its_own_options(folder):
    follow(DOCUMENTS[1], folder)
    [run] = folder.glob("data/cache/wide_*_run")
    record = json.loads((run / "model_metadata.json").read_text())
    assert record["extra"]["arguments"] == {"width": 32}


def test_a_run_is_read_as_the_docs_say(folder):
    output = follow(DOCUMENTS[2], folder)
    assert output.startswith("True 160 ['complete']\n")
    assert "step-00000160/model.ckpt" in output
    assert "--run_dir runs/by_hand" in output


def test_every_file_of_a_run_is_in_its_description(followed):
    folder, _ = followed
    [run] = folder.glob("data/cache/sine_*_run")
    described = re.sub(r"\d+", "0", DOCUMENTS[2].read_text())
    for path in run.rglob("*"):
        if path.is_file() and path.parent.name != "report":
            assert re.sub(r"\d+", "0", path.name) in described


def test_every_document_is_looked_at():
    assert {REPOSITORY / "README.md", *(REPOSITORY / "docs").glob("*.md")} == set(DOCUMENTS)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document):
    for target in re.findall(r"\]\(([^)#]+)\)", document.read_text()):
        if not target.startswith("https://"):
            assert (document.parent / target).exists(), target


@pytest.mark.slow
def test_stores_and_plugins_do_what_their_document_shows(tmp_path):
    output = follow(DOCUMENTS[3], tmp_path)
    assert "120 b'a whole training state'" in output
    assert "True []" in output
    assert "tensor(0.)" in output
    assert "kept: [(60, 0), (64, 1)]" in output
    assert "saved: 20" in output


@pytest.mark.slow
def test_a_script_reports_by_itself_and_under_a_stage_as_its_document_shows(folder):
    output = follow(REPOSITORY / "docs/sdk.md", folder)
    [log] = folder.glob("periflow_trainer_*.log")
    assert len(log.read_text().splitlines()) == 200
    [path] = folder.glob("data/cache/scripted_*_run")
    run = TrainingRun(path)
    assert (run.is_complete, run.manifest.step) == (True, 200)
    assert run.metrics()["loss"].iloc[-1] < 0.1
    assert [c.path.name for c in run.checkpoints()] == ["checkpoint.pt"] * 3
    assert output.strip().splitlines()[-1] == "160"
    described = re.sub(r"\d+", "0", DOCUMENTS[2].read_text())
    for file in (f for f in path.rglob("*") if f.is_file() and f.parent.name != "report"):
        assert re.sub(r"\d+", "0", file.name) in described, file


@pytest.mark.slow
def test_an_unmodified_script_goes_on_as_its_document_shows(tmp_path):
    output = follow(REPOSITORY / "docs/autopatch.md", tmp_path)
    assert "ended with status 143" in output
    assert "the same, bit for bit" in output
    assert "train.py is complete; there is nothing to train" in output


@pytest.mark.slow
def test_the_lean_loop_trains_as_its_document_shows(folder):
    output = follow(REPOSITORY / "docs/adapter.md", folder)
    assert re.findall(r"^lean: (\d+) ", output, re.MULTILINE) == ["40"]
    run = TrainingRun(folder / "runs/curve")
    assert {"train_loss", "train_mae", "val_loss", "val_mae"} <= set(run.metrics().columns)
    assert run.model().hparams == {"width": 16}


@pytest.mark.parametrize("name", ["README.md", "docs/adapter.md"])
def test_the_support_matrix_is_the_adapters_own_table(name):
    text = (REPOSITORY / name).read_text()
    assert "| supported |" in text
    assert filled(text) == text, (
        f"{name} is not what the table says. Run: "
        "python -m curitorch.external.adapter.support_matrix README.md docs/adapter.md"
    )


@pytest.mark.slow
def test_plain_lightning_resumes_as_the_page_on_exactness_shows(tmp_path):
    assert "exact: True" in follow(DOCUMENTS[6], tmp_path)


@pytest.mark.slow
def test_a_notebook_explores_the_run_as_its_document_shows(folder):
    output = follow(REPOSITORY / "docs/notebook.md", folder)
    assert "Launching:" not in output
    [path] = folder.glob("data/cache/sine_*_explore_notebook.ipynb")
    outputs = [o for cell in json.loads(path.read_text())["cells"] for o in cell.get("outputs", [])]
    shown = [mime for output in outputs for mime in output.get("data", {})]
    assert "image/png" in shown
    assert not any(output["output_type"] == "error" for output in outputs)
    assert "by hand" in output
    assert "4 samples of the train data: [float32 (4, 1), float32 (4, 1)]" in output
    assert "torch.Size([4, 1])" in output
    assert float(re.search(r"^complete (\d\.\d+)$", output, re.MULTILINE)[1]) < 0.1


@pytest.mark.slow
def test_the_logger_writes_and_reports_as_its_document_shows(folder):
    output = follow(REPOSITORY / "docs/logger.md", folder)
    assert "{'learning_rate': 0.1} 3\n" in output
    files = re.findall(r"^24 (\S+) \S+ (True|False)$", output, re.MULTILINE)
    assert ("mine.ckpt", "False") in files
    assert "True" in dict(files).values()
    report = (folder / "reports/_latest/index.html").read_text()
    for word in (">small</td>", ">large</td>", "data:image/png;base64,"):
        assert word in report
    assert "val/loss" in (folder / "tables/logged.csv").read_text()
    assert list((folder / "viewed/logged").glob("events.out.tfevents.*"))


@pytest.mark.slow
def test_slurm_needs_nothing_but_settings_as_its_page_shows(folder):
    follow(REPOSITORY / "docs/slurm.md", folder)
    [written] = folder.glob("data/cache/sine_*_run/job.sbatch")
    for line in ("--partition=gpu", "--nodes=2", "--gpus-per-node=4", "--exclude=node[3-5]"):
        assert f"#SBATCH {line}" in written.read_text()
    assert not TrainingRun(written.parent).attempts()
    [swept] = folder.glob("data/cache/sweep_*_run")
    assert TrainingRun(swept).is_complete
    for name in ("with_submitit.py", "with_torchx.py"):  # tried by hand, with what they import
        compile((folder / name).read_text(), name, "exec")
