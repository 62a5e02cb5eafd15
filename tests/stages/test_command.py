import shlex
import sys
from types import SimpleNamespace

import pytest

from curitorch.external.rundir import TrainingRun
from curitorch.params import CheckpointParams, LaunchParams, TrainerParams
from curitorch.params.curifactory_api import Lazy
from curitorch.stages import command
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


def test_the_list_for_each_node_is_the_same_but_for_who_hosts_the_rendezvous(tmp_path):
    settings = TrainerParams(model="net:Net", epochs=3)
    given = {
        "run": tmp_path / "run",
        "settings": settings,
        "inputs": {"dataset_path": tmp_path / "a b.npy"},
        "checkpoint": CheckpointParams(keep=7),
        "launch": LaunchParams(nodes=2, processes_per_node=4, accelerator="gpu"),
        "head": "node-1",
        "port": 1234,
        "job": "first",
    }
    words = command(**given)
    guard = words.index("--")
    assert words[:guard] == [
        *(sys.executable, "-m", "torch.distributed.run", "--nnodes=2", "--nproc-per-node=4"),
        *("--max-restarts=0", "--rdzv-backend=c10d", "--rdzv-endpoint=node-1:1234"),
        *("--rdzv-id=first", "-m"),
    ]
    assert words[guard + 1 :] == [
        *("curitorch.external.rank", "-m", "curitorch.external.trainer"),
        *(f"--run_dir={tmp_path / 'run'}", "--model", "net:Net", "--epochs", "3"),
        *(f"--dataset_path={tmp_path / 'a b.npy'}", "--keep", "7", "--accelerator=gpu"),
    ]
    host = command(**given, is_host=True)
    assert [word for word in host if word not in words] == ["--rdzv-conf=is_host=True"]


def test_the_list_for_one_node_is_what_a_stage_runs(tmp_path):
    words = command("train.py", run=tmp_path, options={"steps": 3})
    assert "--standalone" in words
    assert words[words.index("--") + 1 :] == [
        *("curitorch.external.rank", "train.py", f"--run_dir={tmp_path}", "--steps=3"),
    ]


def test_elastic_nodes_restart_in_torchrun_and_several_need_a_place_to_meet(tmp_path):
    launch = LaunchParams(nodes=4, max_restarts=3)
    words = command("train.py", run=tmp_path, launch=launch, head="n", min_nodes=2)
    assert {"--nnodes=2:4", "--max-restarts=3"} <= set(words)
    with pytest.raises(ValueError, match="there is no head"):
        command("train.py", run=tmp_path, launch=launch)
