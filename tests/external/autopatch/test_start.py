"""At an interpreter's start: what begins again, what is left alone, and what it costs."""

import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from curitorch.external.autopatch.start import is_users, split

PYTHON = sys.executable


def test_both_files_are_installed_beside_the_package():
    folder = Path(sysconfig.get_paths()["purelib"])
    assert "LATTICE_AUTOPATCH" in (folder / "curitorch_autopatch.pth").read_text()
    start = (folder / "curitorch_autopatch.start").read_text()
    assert start == "curitorch.external.autopatch.start:start\n"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["train.py", "-m", "x"], ([], ["train.py", "-m", "x"])),
        (["-u", "-W", "error", "train.py"], (["-u", "-W", "error"], ["train.py"])),
        (
            ["-Werror", "-X", "dev", "-m", "a.b", "c"],
            (["-Werror", "-X", "dev"], ["-m", "a.b", "c"]),
        ),
        (["-um", "a.b"], (["-u"], ["-m", "a.b"])),
        (["-ma.b", "c"], ([], ["-m", "a.b", "c"])),
        (["-c", "print()"], ([], [])),
        (["-"], ([], [])),
        ([], ([], [])),
    ],
)
def test_a_command_line_is_options_and_a_program(words, expected):
    assert split(["python", *words]) == expected


def test_only_the_users_own_programs_are_patched(tmp_path, monkeypatch):
    (tmp_path / "train.py").touch()
    (tmp_path / "package").mkdir()
    monkeypatch.chdir(tmp_path)
    assert is_users(["train.py"])
    assert is_users(["-m", "package.train"])
    for others in (["-m", "pip"], ["-m", "torch.distributed.run"], [], ["missing.py"]):
        assert not is_users(others)
    assert not is_users([str(Path(PYTHON).parent / "pip")])
    assert not is_users(["-m", "curitorch.external.autopatch"])


def test_other_programs_run_as_ever(runner):
    environment = runner.environment(LATTICE_CHECKPOINT_TYPE="nonsense")
    for words in (["-m", "pip", "--version"], ["-c", "import sys; print('torch' in sys.modules)"]):
        done = subprocess.run([PYTHON, *words], env=environment, capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, ""), words
    assert done.stdout == "False\n"


def test_a_script_without_torch_does_not_import_it(runner):
    script = runner.folder / "launcher.py"
    script.write_text("import sys\nfor i in range(2):\n    print(i, 'torch' in sys.modules)\n")
    done = runner.run(None, command=[PYTHON, str(script)])
    assert (done.status, done.out, done.err) == (0, "0 False\n1 False\n", "")


def test_a_script_finds_what_python_gives_it(runner):
    script = runner.folder / "look.py"
    script.write_text("import sys\nprint(__name__, __file__, sys.argv, sys.path[0])\n")
    for words in ([str(script), "--a", "-m"], ["look.py"]):
        plain, patched = (
            runner.run(None, command=[PYTHON, *words], patched=patched) for patched in (False, True)
        )
        assert patched == plain
    (runner.folder / "package").mkdir()
    (runner.folder / "package" / "part.py").write_text("value = 3\n")
    (runner.folder / "package" / "train.py").write_text(
        "from .part import value\nimport sys\nprint(__name__, __package__, value, sys.argv)\n"
    )
    command = [PYTHON, "-m", "package.train", "--a"]
    plain, patched = (runner.run(None, command=command, patched=each) for each in (False, True))
    assert patched == plain
    assert plain.status == 0


def test_a_notebook_is_refused_with_a_sentence(runner, tmp_path):
    code = "import sys; sys.orig_argv = ['python', '-m', 'ipykernel_launcher', '-f', 'x.json']\n"
    code += "from curitorch.external.autopatch.start import start; start(); import torch"
    done = runner.run(None, command=[PYTHON, "-c", code])
    assert done.status == 1
    assert "a notebook cannot be continued" in done.err.splitlines()[-1]
