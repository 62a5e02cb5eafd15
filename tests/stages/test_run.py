"""What `curitorch` itself says, where curifactory would show a traceback."""

import os
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


def said_by(project, *words, **environment):
    done = subprocess.run(
        [sys.executable, "-m", "curitorch.stages.run", *words],
        cwd=project,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stderr


def test_a_name_that_is_no_experiments_or_parameters_is_one_sentence(project):
    (project / "params").mkdir()
    (project / "params/one.py").write_text("")
    for words in (["noting"], ["noting", "-p", "nothing"], ["nothing", "-p", "noting"]):
        code, said = said_by(project, *words)
        assert code == 1
        assert said.splitlines()[-1].startswith(
            "There is no module 'torn_experiments.noting' (seen"
        )
        assert said.endswith("There are in torn_experiments: nothing; in params: one.\n")
        assert "Traceback" not in said
    (project / "curifactory_config.json").unlink()
    code, said = said_by(project, "nothing")
    assert code == 1
    assert f"no 'curifactory_config.json' in '{project}'. Run the experiment in its" in said


def test_what_a_module_of_the_users_imports_and_is_not_there_keeps_its_traceback(project):
    path = project / "torn_experiments/nothing.py"
    path.write_text(f"import torn_experiments.gone\n{path.read_text()}")
    code, said = said_by(project, "nothing")
    assert code == 1
    assert "import torn_experiments.gone" in said


def test_what_an_old_encoding_has_no_letter_for_is_written_by_its_number(project):
    path = project / "torn_experiments/nothing.py"
    path.write_text(path.read_text().replace("    pass", "    print('step 1 \u00b7 \u2026')"))
    assert said_by(project, "nothing", PYTHONIOENCODING="ascii") == (0, "")


def test_a_stage_to_overwrite_that_there_is_not_is_said_and_no_success(project):
    path = project / "torn_experiments/nothing.py"
    text = path.read_text().replace("    pass", "    made(cf.Record(manager, param_sets[0]))")
    stage = "import curifactory as cf\n\n@cf.stage([], [])\ndef made(record):\n    pass\n\n"
    path.write_text(stage + text)
    assert said_by(project, "nothing", "--overwrite-stage", "made")[0] == 0
    code, said = said_by(project, "nothing", "--overwrite-stage", "mad")
    assert code == 1
    assert said.endswith(
        "--overwrite-stage mad: the experiment has no such stage, so nothing was overwritten for "
        "it. Its stages are made.\n"
    )


def test_an_experiment_whose_output_nobody_reads_says_so(project):
    command = [sys.executable, "-m", "curitorch.stages.run", "nothing"]
    with subprocess.Popen(
        command, cwd=project, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as experiment:
        experiment.stdout.close()
        said = experiment.stderr.read()
    assert experiment.returncode == 1
    assert said.startswith("Nobody reads this experiment's output any more")
