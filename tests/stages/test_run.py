"""What `curitorch` itself says, where curifactory would show a traceback."""

import sys

import pytest

from curitorch.stages.run import main


@pytest.mark.parametrize(
    ("torn", "sentence"),
    [
        ("data/store.json", "Put a copy back or move it away"),
        ("data/params_registry.json", "Move it away"),
        ("curifactory_config.json", "Mend it."),
    ],
)
def test_a_torn_file_of_curifactorys_is_named_and_kept(
    tmp_path, monkeypatch, capsys, torn, sentence
):
    monkeypatch.chdir(tmp_path)
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
    (tmp_path / torn).write_text('{"torn')
    monkeypatch.setattr(sys, "argv", ["curitorch", "nothing"])
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 1
    said = capsys.readouterr().err
    assert f"'{torn}'" in said
    assert sentence in said
    assert (tmp_path / torn).read_text() == '{"torn'
