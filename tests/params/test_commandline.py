import dataclasses
import json
import math
import subprocess
import sys
from dataclasses import dataclass, field
from typing import Any

import click
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from curitorch.params import CheckpointParams, LaunchParams, TrainerParams
from curitorch.params.commandline import from_options, options_for, to_arguments


@dataclass(frozen=True)
class Everything:
    text: str = "some"
    text_or_none: str | None = "some"
    none_or_text: str | None = None
    number: int = 3
    number_or_none: int | None = 4
    ratio: float = 0.1
    ratio_or_none: float | None = None
    flag: bool = False
    flag_or_none: bool | None = True
    texts: list[str] = field(default_factory=lambda: ["a"])
    numbers: list[int] = field(default_factory=list)
    ratios: list[float] | None = None
    pair: tuple[int, str] = (1, "one")
    row: tuple[float, ...] = ()
    table: dict[str, Any] = field(default_factory=lambda: {"x": 1})
    environment: dict[str, str] | None = None


def through_click(value):
    """Send a dataclass through a real click command and back."""

    @click.command()
    @options_for(type(value))
    def command(**options):
        return from_options(type(value), options)

    return command.main(to_arguments(value), standalone_mode=False)


def is_sendable(text: str) -> bool:
    return "\0" not in text and not any("\ud800" <= letter <= "\udfff" for letter in text)


hostile = st.sampled_from(
    ["", " ", "none", "NONE", '"', '"none"', "$HOME", "-", "--", "--x", "-1", "--help", "a=b", "\n"]
)
texts = hostile | st.text().filter(is_sendable)
numbers = st.integers()
ratios = st.floats()
json_data = st.recursive(
    st.none() | st.booleans() | numbers | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
everything = st.builds(
    Everything,
    text=texts,
    text_or_none=texts | st.none(),
    none_or_text=texts | st.none(),
    number=numbers,
    number_or_none=numbers | st.none(),
    ratio=ratios,
    ratio_or_none=ratios | st.none(),
    flag=st.booleans(),
    flag_or_none=st.booleans() | st.none(),
    texts=st.lists(st.text() | hostile, max_size=3),
    numbers=st.lists(numbers, max_size=3),
    ratios=st.none() | st.lists(st.floats(allow_nan=False), max_size=3),
    pair=st.tuples(numbers, texts),
    row=st.lists(st.floats(allow_nan=False), max_size=3).map(tuple),
    table=st.dictionaries(st.text(), json_data, max_size=3),
    environment=st.none() | st.dictionaries(texts, texts, max_size=3),
)


def assert_same(received, sent):
    for each in dataclasses.fields(sent):
        a, b = getattr(received, each.name), getattr(sent, each.name)
        both_nan = isinstance(a, float) and isinstance(b, float) and math.isnan(a) and math.isnan(b)
        assert (a == b and repr(a) == repr(b)) or both_nan, each.name


@settings(deadline=None, max_examples=300)
@given(everything)
def test_settings_survive_the_command_line(sent):
    assert_same(through_click(sent), sent)


def test_settings_survive_a_real_process(tmp_path):
    sent = Everything(
        text='--x \'"$HOME" `id` \n é☃ %s * \\',
        text_or_none=None,
        none_or_text="none",
        number=-1,
        number_or_none=None,
        ratio=3e-7,
        ratio_or_none=-math.inf,
        flag=True,
        flag_or_none=None,
        texts=["", "--y", "\0", "\ud800"],
        ratios=[],
        row=(-0.0, 1e300),
        table={"é": {"$": [None, "'"]}},
        environment={},
    )
    script = tmp_path / "a trainer.py"
    script.write_text(
        "import importlib.util, sys, click\n"
        "spec = importlib.util.spec_from_file_location('probe', sys.argv.pop(1))\n"
        "probe = sys.modules['probe'] = importlib.util.module_from_spec(spec)\n"
        "spec.loader.exec_module(probe)\n"
        "@click.command()\n"
        "@probe.options_for(probe.Everything)\n"
        "def main(**options):\n"
        "    print(ascii(probe.from_options(probe.Everything, options)))\n"
        "main()\n"
    )
    done = subprocess.run(
        [sys.executable, script, __file__, *to_arguments(sent)], capture_output=True, text=True
    )
    assert done.stderr == ""
    assert done.stdout.strip() == ascii(sent)


def test_our_own_settings_survive():
    for sent in (
        TrainerParams(
            model="a.b:Outer.Inner",
            model_args={"name": 'it\'s "$5"', "rate": 3e-7, "none": None, "flags": [True, False]},
            data="a.b:data",
            steps=7,
            batch_size=64,
            accumulate=4,
            gradient_clip=0.5,
            seed=4294967295,
            trainer_args={"limit_val_batches": 2},
        ),
        CheckpointParams(every_n_epochs=None, every_n_seconds=0.25, keep=0, at_exit=False),
        LaunchParams(nodes=2, lock_wait_seconds=1, environment={"A": "-- $x"}),
    ):
        assert through_click(sent) == sent


def test_defaults_have_no_words_and_other_values_two():
    assert to_arguments(TrainerParams()) == []
    assert to_arguments(TrainerParams(model="a:B", model_args={"w": 3}, batch_size=64)) == [
        "--model", "a:B", "--model_args", '{"w": 3}', "--batch_size", "64"
    ]  # fmt: skip
    assert to_arguments(CheckpointParams(every_n_epochs=None)) == ["--every_n_epochs", "none"]


def test_a_value_that_starts_with_a_dash_is_not_taken_for_an_option():
    assert to_arguments(Everything(text="--flag", number=-1)) == ["--text=--flag", "--number=-1"]


def test_fields_can_be_left_out():
    sent = LaunchParams(nodes=2, max_restarts=1)
    assert to_arguments(sent, leave_out=["nodes"]) == ["--max_restarts", "1"]
    with pytest.raises(ValueError, match="leave_out names 'node', which LaunchParams does not"):
        to_arguments(sent, leave_out=["node"])


@click.command()
@options_for(TrainerParams, CheckpointParams)
def trainer(**options):
    """Train."""
    click.echo(repr(from_options(CheckpointParams, options)))
    click.echo(json.dumps(dataclasses.asdict(from_options(TrainerParams, options))))


def test_dashes_are_accepted_as_well_as_underscores():
    for option in ("--batch_size", "--batch-size"):
        done = CliRunner().invoke(trainer, [option, "8"])
        assert json.loads(done.output.splitlines()[1])["batch_size"] == 8


def test_help_tells_each_option_its_words_and_its_default():
    text = " ".join(CliRunner().invoke(trainer, ["--help"]).output.split())
    for cls in (TrainerParams, CheckpointParams):
        for each in dataclasses.fields(cls):
            assert f"--{each.name}" in text
            assert each.metadata["help"] in text
    assert "--epochs INTEGER|none" in text
    assert "[default: 32-true]" in text
    assert "[default: true]" in text


def test_every_setting_of_ours_has_its_help():
    for cls in (TrainerParams, CheckpointParams, LaunchParams):
        for each in dataclasses.fields(cls):
            assert each.metadata["help"].endswith(".") or "; " in each.metadata["help"], each.name


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--batch_size", "many"], "'many' is not a whole number. Write for example 64."),
        (["--batch_size", "0"], "batch_size is 0, expected a whole number of at least 1."),
        (["--model_args", "{'a': 1}"], "is not JSON"),
        (["--model_args", "[1]"], "[1] is of type list, expected dict[str, object]."),
        (["--at_exit", "maybe"], "'maybe' is not a truth value. Write true or false."),
        (["--model", "x.py"], "model is 'x.py', expected package.module:Name."),
    ],
)
def test_a_wrong_option_ends_the_command_with_a_sentence(arguments, sentence):
    done = CliRunner().invoke(trainer, arguments)
    assert done.exit_code == 2
    assert sentence in " ".join(done.output.split())
    assert "Traceback" not in done.output


@dataclass
class Needed:
    path: str
    size: int | None


def test_a_field_without_default_is_required():
    assert_same(through_click(Needed("", None)), Needed("", None))

    @click.command()
    @options_for(Needed)
    def command(**options): ...

    assert "Missing option '--path'" in CliRunner().invoke(command, ["--size", "1"]).output
    with pytest.raises(click.UsageError, match="missing 1 required"):
        from_options(Needed, {"size": 1})


@dataclass
class Derived:
    size: int = 1
    area: int = field(default=1, init=False)


def test_a_derived_field_is_no_option():
    assert to_arguments(Derived(2)) == ["--size", "2"]
    assert through_click(Derived(2)) == Derived(2)


@dataclass
class Nested:
    inner: Derived = field(default_factory=Derived)


def test_fields_without_words_and_names_given_twice_are_refused():
    with pytest.raises(TypeError, match="have no word on a command line"):
        options_for(Nested)
    with pytest.raises(ValueError, match="Derived and Derived both have a field 'size'"):
        options_for(Derived, Derived)


def test_other_options_of_a_command_are_let_be():
    assert from_options(CheckpointParams, {"keep": 5, "dataset_path": "x"}).keep == 5
