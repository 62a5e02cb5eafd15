import shlex
import sys
from types import SimpleNamespace

import pytest

from curitorch.external.rundir import TrainingRun
from curitorch.params import LaunchParams
from curitorch.params.curifactory_api import Lazy
from curitorch.stages.command import option_words, program_words, torchrun_command
from curitorch.stages.training import path_of


def test_the_command_is_a_list_with_a_guard_before_the_trainer():
    words = [*program_words("my.trainer"), *option_words({"log": "a b", "node": "$HOME"})]
    command = torchrun_command(words, LaunchParams(processes_per_node=3))
    assert command[:3] == [sys.executable, "-m", "torch.distributed.run"]
    guard = command.index("--")
    assert command[guard + 1 :] == [
        *("curitorch.external.rank", "-m", "my.trainer", "--log=a b", "--node=$HOME"),
    ]
    assert "--nproc-per-node=3" in command[:guard]
    assert shlex.split(shlex.join(command)) == command


def test_options_of_every_kind_become_words():
    options = {"a": 1, "b": True, "c": False, "d": None, "e": ["x", ""], "f": 3e-7, "g": "ü'\n"}
    assert option_words(options) == ["--a=1", "--b", "--e=x", "--e=", "--f=3e-07", "--g=ü'\n"]


@pytest.mark.parametrize("name", ["", "my/trainer", "a..b", "a b"])
def test_what_is_no_program_is_one_sentence(name):
    with pytest.raises(ValueError, match="neither a module nor a script"):
        program_words(name)
    assert program_words("my folder/train.py") == ["my folder/train.py"]


def test_the_local_launcher_says_that_it_starts_one_machine():
    with pytest.raises(ValueError, match="Set nodes=1"):
        torchrun_command(["-m", "x"], LaunchParams(nodes=2))


def test_inputs_become_absolute_paths(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lazy = Lazy("data", resolve=False)
    with pytest.raises(TypeError, match="'data' has no cacher"):
        path_of(lazy)
    lazy.cacher = SimpleNamespace(get_path=lambda: "data/cache/x")
    for artifact in (lazy, "data/cache/x", TrainingRun("data/cache/x"), tmp_path / "data/cache/x"):
        assert path_of(artifact) == str(tmp_path / "data/cache/x")
    with pytest.raises(TypeError, match="A dict was given as the input of a trainer"):
        path_of({})
