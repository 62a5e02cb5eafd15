"""What `curitorch` itself says, where curifactory would show a traceback."""

import subprocess
import sys

import pytest

from curitorch.stages.run import main


@pytest.fixture
def project(tmp_path):
    for folder in ("data", "torn_experiments"):  # a name that no other test imports
        (tmp_path / folder).mkdir()
    (tmp_path / "curifactory_config.json").write_text(
        '{"experiments_module_name": "torn_experiments"}'
    )
    (tmp_path / "torn_experiments/nothing.py").write_text(
        "from curitorch.params import TrainingParams\n\n"
        "def get_params():\n    return [TrainingParams(name='one')]\n\n"
        "def run(param_sets, manager):\n    pass\n"
    )
    return tmp_path


@pytest.mark.parametrize(
    ("torn", "sentence"),
    [
        ("data/store.json", "Put a copy back or move it away"),
        ("data/params_registry.json", "Move it away"),
        ("curifactory_config.json", "Mend it."),
    ],
)
def test_a_torn_file_of_curifactorys_is_named_and_kept(
    project, monkeypatch, capsys, torn, sentence
):
    monkeypatch.chdir(project)
    (project / torn).write_text('{"torn')
    monkeypatch.setattr(sys, "argv", ["curitorch", "nothing"])
    monkeypatch.setattr(sys, "path", [str(project), *sys.path])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 1
    said = capsys.readouterr().err
    assert f"'{torn}'" in said
    assert sentence in said
    assert (project / torn).read_text() == '{"torn'


def test_an_experiment_whose_output_nobody_reads_says_so(project):
    command = [sys.executable, "-m", "curitorch.stages.run", "nothing"]
    with subprocess.Popen(
        command, cwd=project, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as experiment:
        experiment.stdout.close()
        said = experiment.stderr.read()
    assert experiment.returncode == 1
    assert said.startswith("Nobody reads this experiment's output any more")
