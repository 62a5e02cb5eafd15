import click
import pytest
from click.testing import CliRunner

from curitorch.params import LaunchParams, SlurmParams, TrainingParams
from curitorch.params.commandline import from_options, options_for, to_arguments

IMPOSSIBLE = [
    ({"partition": "a b"}, "partition is 'a b', expected one word without spaces and quotes."),
    ({"account": ""}, "account is ''"),
    ({"constraint": 3}, "constraint is 3, expected a string, or None."),
    ({"time_limit": "8 hours"}, "time_limit is '8 hours', expected something like 8:00:00 or 2-12"),
    ({"memory": "64 GB"}, "memory is '64 GB', expected something like 64G, or None."),
    ({"gpus_per_node": -1}, "gpus_per_node is -1"),
    ({"cpus_per_node": 0}, "cpus_per_node is 0"),
    ({"sbatch": "--exclude=n3"}, "sbatch is '--exclude=n3', expected a list of strings such as ["),
    ({"sbatch": ["exclude"]}, "sbatch has 'exclude', expected an option."),
    ({"setup": ["a\nb"]}, "setup has 'a\\nb', expected a line of text."),
    ({"modules": [1]}, "modules has 1, expected a line of text."),
    ({"min_nodes": 0}, "min_nodes is 0"),
    ({"warning_seconds": 0}, "warning_seconds is 0"),
    ({"max_requeues": -1}, "max_requeues is -1"),
    ({"submit": "no"}, "submit is 'no', expected True or False."),
    ({"poll_seconds": 0}, "poll_seconds is 0"),
]

FULL = SlurmParams(
    partition="gpu,long",
    account="physics",
    time_limit="2-12:30:00",
    gpus_per_node=4,
    cpus_per_node=32,
    memory="0",
    constraint="a100&ib",
    sbatch=["--exclude=node[3-5]", "--comment=it's $HOME"],
    srun=["--cpu-bind=none"],
    modules=["cuda/12.4"],
    setup=['export A="b c"', "source ~/env ü"],
    min_nodes=2,
    warning_seconds=300,
    max_requeues=5,
    submit=False,
    poll_seconds=2.5,
)


@pytest.mark.parametrize(("settings", "sentence"), IMPOSSIBLE)
def test_impossible_jobs_are_refused_with_a_sentence(settings, sentence):
    with pytest.raises(ValueError) as refusal:
        SlurmParams(**settings)
    assert sentence in str(refusal.value)


@pytest.mark.parametrize("time_limit", ["30", "8:00", "8:00:00", "2-12", "2-12:30", "infinite"])
def test_time_limits_are_written_as_sbatch_has_them(time_limit):
    assert SlurmParams(time_limit=time_limit).time_limit == time_limit


@pytest.mark.parametrize("settings", [SlurmParams(), FULL])
def test_settings_survive_the_command_line(settings):
    @click.command()
    @options_for(SlurmParams)
    def show(**options):
        assert from_options(SlurmParams, options) == settings

    result = CliRunner().invoke(show, to_arguments(settings), catch_exceptions=False)
    assert result.exit_code == 0, result.output


def test_lists_are_copied():
    lines = ["module purge"]
    settings = SlurmParams(setup=lines)
    lines.append("rm -rf /")
    assert settings.setup == ["module purge"]


def test_slurm_is_not_in_the_hash():
    plain = TrainingParams(name="a").params_hash()
    launch = LaunchParams(launcher="slurm", nodes=4)
    assert TrainingParams(name="a", launch=launch, slurm=FULL).params_hash() == plain
