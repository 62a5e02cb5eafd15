"""The variables: what is right is understood, what is wrong is one sentence and status 2."""

import pytest

from curitorch.external.autopatch.settings import BadVariable, read_settings

RIGHT = {
    "LATTICE_AUTOPATCH": "torch",
    "LATTICE_CHECKPOINT_TYPE": "local",
    "LATTICE_CHECKPOINT_CONFIG": "root=/tmp/ckpt",
}


def test_the_line_of_the_contract_is_understood():
    config = 'root="/tmp/a,b = 1",periodic_saving=enabled,periodic_saving_interval=300'
    settings = read_settings({**RIGHT, "LATTICE_CHECKPOINT_CONFIG": config})
    assert settings.store == {"root": "/tmp/a,b = 1"}
    assert (settings.every_seconds, settings.every_steps) == (300.0, None)
    assert settings.at_exit


def test_an_interval_may_be_steps():
    config = "root=/tmp/a,periodic_saving=ENABLED,periodic_saving_interval=500steps"
    settings = read_settings({**RIGHT, "LATTICE_CHECKPOINT_CONFIG": config})
    assert (settings.every_seconds, settings.every_steps) == (None, 500)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("LATTICE_AUTOPATCH", "torhc", ["torhc", "LATTICE_AUTOPATCH=torch"]),
        ("LATTICE_CHECKPOINT_TYPE", "", ["LATTICE_CHECKPOINT_TYPE is not set", "local"]),
        ("LATTICE_CHECKPOINT_CONFIG", "root", ["LATTICE_CHECKPOINT_CONFIG", "key=value"]),
        ("LATTICE_CHECKPOINT_CONFIG", "root=/a,atexit_saving=on", ["atexit_saving=on", "enabled"]),
        (
            "LATTICE_CHECKPOINT_CONFIG",
            "root=/a,periodic_saving=enabled",
            ["no periodic_saving_int"],
        ),
        (
            "LATTICE_CHECKPOINT_CONFIG",
            "root=/a,periodic_saving=enabled,periodic_saving_interval=5min",
            ["periodic_saving_interval=5min", "300"],
        ),
        (
            "LATTICE_CHECKPOINT_CONFIG",
            "root=/a,periodic_saving=enabled,periodic_saving_interval=-1",
            ["periodic_saving_interval=-1"],
        ),
        ("LATTICE_LOGLEVEL", "loud", ["LATTICE_LOGLEVEL", "'loud'", "WARNING"]),
        ("LATTICE_STRICT", "yes", ["LATTICE_STRICT", "'yes'", "0 or 1"]),
    ],
)
def test_a_wrong_value_is_refused_with_the_remedy(name, value, words):
    with pytest.raises(BadVariable) as error:
        read_settings({**RIGHT, name: value})
    assert all(word in str(error.value) for word in words), error.value


@pytest.mark.parametrize(
    ("kind", "config", "words"),
    [
        ("locla", "root=/a", ["no 'locla' store", "local"]),
        ("local", "roots=/a", ["no setting 'roots'", "root"]),
        ("local", "", ["needs 'root'"]),
        ("local", "root=/proc/nowhere", ["cannot be used", "/proc/nowhere"]),
        (
            "remote",
            "job_id=a,ckpt_service_endpoint=127.0.0.1,ckpt_service_port=1",
            ["remote store"],
        ),
    ],
)
def test_a_store_that_cannot_be_used_stops_the_script_before_it_begins(runner, kind, config, words):
    done = runner.run("plain.py", LATTICE_CHECKPOINT_TYPE=kind, LATTICE_CHECKPOINT_CONFIG=config)
    assert (done.status, done.out) == (2, "")
    [sentence] = done.err.splitlines()
    assert all(word in sentence for word in ["LATTICE_CHECKPOINT_CONFIG", *words]), sentence
