# ruff: noqa: RUF009  # set_hash_functions is how curifactory declares this field

import copy
import dataclasses
import json
import pickle
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import curifactory as cf
import pytest
from curifactory import hashing

from curitorch.params import CheckpointParams, LaunchParams, TrainerParams, TrainingParams


@dataclass
class Layer:
    width: int = 1
    name: str = "dense"


@dataclass
class Plain(cf.ExperimentParameters):
    encoder: Layer = field(default_factory=Layer)
    decoder: Layer = field(default_factory=Layer)


@dataclass
class Mine(TrainingParams):
    encoder: Layer = field(default_factory=Layer)
    decoder: Layer = field(default_factory=Layer)
    size: int = 1
    size1: int = 1
    workers: int = 4
    anything: Any = None
    hash_representations: dict = cf.set_hash_functions(workers=None)

    def __post_init__(self):
        self.prepared = True  # without super().__post_init__()


@dataclass
class Grandchild(Mine):
    cores: int = 1
    hash_representations: dict = cf.set_hash_functions(cores=None)


@dataclass(slots=True)
class Slotted(TrainingParams):
    workers: int = 4
    hash_representations: dict = cf.set_hash_functions(workers=None)


class Undecorated(TrainingParams):
    pass


SUBCLASSES = [TrainingParams, Mine, Grandchild, Slotted, Undecorated]


@pytest.mark.parametrize("cls", SUBCLASSES)
@pytest.mark.parametrize(
    "change",
    [
        {"launch": LaunchParams(processes_per_node=2, nodes=4, accelerator="gpu")},
        {"launch": LaunchParams(grace_seconds=1, environment={"A": "1"})},
        {"checkpoint": CheckpointParams(every_n_steps=5, keep=0)},
        {"name": "other"},
        {"overwrite": True},
    ],
)
def test_where_a_model_was_trained_is_not_in_the_hash(cls, change):
    assert cls(**change).params_hash() == cls().params_hash()


@pytest.mark.parametrize("cls", SUBCLASSES)
@pytest.mark.parametrize(
    "change",
    [
        {"model": "a:B"},
        {"epochs": 2},
        {"batch_size": 64},
        {"seed": 1},
        {"data_args": {"a": 1}},
        {"engine": "lean"},
    ],
)
def test_what_is_trained_is_in_the_hash(cls, change):
    assert cls(trainer=TrainerParams(**change)).params_hash() != cls().params_hash()


def test_a_subclass_adds_exclusions_to_those_of_its_parents():
    assert Mine(workers=9).params_hash() == Mine().params_hash()
    assert Slotted(workers=9).params_hash() == Slotted().params_hash()
    assert Grandchild(workers=9, cores=9).params_hash() == Grandchild().params_hash()
    assert Grandchild(size=9).params_hash() != Grandchild().params_hash()
    assert Mine().prepared


def test_a_subclass_may_put_an_excluded_field_into_the_hash():
    @dataclass
    class OnHardware(Grandchild):
        hash_representations: dict = cf.set_hash_functions(
            launch=lambda self, launch: launch.nodes, workers=lambda self, workers: workers
        )

    two = LaunchParams(nodes=2)
    assert OnHardware(launch=two).params_hash() != OnHardware().params_hash()
    assert OnHardware(workers=9).params_hash() != OnHardware().params_hash()
    assert OnHardware(cores=9).params_hash() == OnHardware().params_hash()


def test_exclusions_given_to_one_instance_are_completed_as_well():
    given = Mine(hash_representations={"size": None}, size=7)
    assert given.params_hash() == Mine(hash_representations={"size": None}).params_hash()
    later = Mine(size=7, launch=LaunchParams(nodes=3))
    later.hash_representations = {"size": None}
    assert later.params_hash() == given.params_hash()


def test_swapped_nested_settings_collide_in_curifactory_but_not_here():
    a, b = Layer(1), Layer(2)
    assert Plain(encoder=a, decoder=b).params_hash() == Plain(encoder=b, decoder=a).params_hash()
    assert Mine(encoder=a, decoder=b).params_hash() != Mine(encoder=b, decoder=a).params_hash()


def test_a_nested_name_is_forgotten_by_curifactory_but_not_here():
    other = Layer(name="convolution")
    assert Plain(encoder=other).params_hash() == Plain().params_hash()
    assert Mine(encoder=other).params_hash() != Mine().params_hash()


def test_of_a_nested_parameter_set_the_name_is_forgotten_and_nothing_else():
    def hashed(**settings):
        return Mine(anything=Mine(**settings)).params_hash()

    assert hashed(name="other", overwrite=True, launch=LaunchParams(nodes=2)) == hashed()
    assert hashed(size=2) != hashed()
    assert hashed(encoder=Layer(name="other")) != hashed()


def test_names_that_continue_each_other_collide_in_curifactory_but_not_here():
    @dataclass
    class Sizes(cf.ExperimentParameters):
        size: int = 1
        size1: int = 1

    assert Sizes(size=12, size1=3).params_hash() == Sizes(size=13, size1=2).params_hash()
    assert Mine(size=12, size1=3).params_hash() != Mine(size=13, size1=2).params_hash()


def test_none_and_functions_are_hashed_as_curifactory_does():
    reps = Mine(anything=len).params_hash(dry=True)
    assert reps["anything"][1] == " len"
    assert Mine(anything=None).params_hash(dry=True)["anything"][1] is None
    assert Mine(anything="x").params_hash() != Mine(anything=None).params_hash()


def test_nested_settings_without_a_lasting_text_are_refused():
    with pytest.raises(TypeError, match=r"^Layer\.width is of type .*expected numbers"):
        Mine(encoder=Layer(width=object())).params_hash()


def test_a_hash_given_by_hand_is_kept():
    assert Mine(hash="mine").params_hash() == "mine"


@pytest.mark.parametrize(
    "copied",
    [copy.copy, copy.deepcopy, dataclasses.replace, lambda p: pickle.loads(pickle.dumps(p))],
)
def test_copies_have_the_same_hash(copied):
    original = TrainingParams(name="a", trainer=TrainerParams(model="a:B"))
    again = copied(original)
    assert again == original
    assert again.params_hash() == original.params_hash()
    assert copied(Mine(workers=9, hash_representations={})).params_hash() == Mine().params_hash()


def test_the_registry_holds_readable_settings(tmp_path):
    params = Mine(name="first", trainer=TrainerParams(model="a:B"), launch=LaunchParams(nodes=2))
    hashed = hashing.hash_param_set(params, store_in_registry=True, registry_path=str(tmp_path))
    entry = json.loads((tmp_path / "params_registry.json").read_text())[hashed]
    assert entry["name"] == "first"
    assert '"model": "a:B"' in entry["trainer"]
    assert entry["IGNORED_PARAMS"]["launch"]["nodes"] == "2"
    assert set(entry["IGNORED_PARAMS"]) >= {"launch", "checkpoint", "workers"}


def test_a_record_takes_the_parameter_set(tmp_path):
    folders = {
        f"{name}_path": str(tmp_path / name)
        for name in ("cache", "manager_cache", "runs", "logs", "notebooks", "reports")
    }
    for folder in folders.values():
        Path(folder).mkdir()
    manager = cf.ArtifactManager(
        "settings", suppress_live_log=True, disable_non_cf_loggers=False, **folders
    )
    params = Mine(name="first")
    record = cf.Record(manager, params)
    assert record.get_hash() == params.hash == Mine().params_hash()
    copied = record.make_copy(Mine(name="second", size=2))
    assert copied.get_hash() == Mine(size=2).params_hash()


def test_print_params_of_a_users_project_shows_the_settings(tmp_path):
    (tmp_path / "curifactory_config.json").write_text(
        '{"experiments_module_name": "experiments", "params_module_name": "params"}'
    )
    for folder in ("experiments", "params"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "__init__.py").write_text("")
    (tmp_path / "experiments" / "digits.py").write_text("def run(param_sets, manager): pass\n")
    (tmp_path / "params" / "quick.py").write_text(
        "from curitorch.params import LaunchParams, TrainerParams, TrainingParams\n"
        "def get_params():\n"
        "    trainer = TrainerParams(model='digits.model:Net', epochs=3)\n"
        "    return [TrainingParams('two', trainer=trainer, launch=LaunchParams(nodes=2))]\n"
    )
    done = subprocess.run(
        [Path(sys.executable).with_name("experiment"), "digits", "-p", "quick", "--print-params"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert "digits.model:Net" in done.stdout, done.stdout + done.stderr
    expected = TrainingParams(trainer=TrainerParams(model="digits.model:Net", epochs=3))
    assert expected.params_hash() in done.stdout
