import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from curitorch.external.schema import UnreadableFile
from curitorch.external.stores.sidecar import (
    OtherSchema,
    folder_name,
    from_json,
    sidecar_name,
    step_of,
    to_json,
)
from curitorch.external.stores.store import NAME, StoredCheckpoint, StoredFile

CHECKSUM = "sha256:" + "0123456789abcdef" * 4
GOOD = {
    "schema": 2,
    "step": 120,
    "files": {"model.ckpt": {"bytes": 3, "checksum": CHECKSUM}},
    "details": {"epoch": 4},
}

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)
CHECKPOINTS = st.builds(
    StoredCheckpoint,
    step=st.integers(0, 2**63 - 1),
    files=st.dictionaries(
        st.from_regex(NAME, fullmatch=True).filter(lambda name: ".." not in name),
        st.builds(StoredFile, bytes=st.integers(0, 2**63), checksum=st.just(CHECKSUM)),
        min_size=1,
        max_size=3,
    ),
    details=st.dictionaries(st.text(), JSON, max_size=3),
    upload=st.sampled_from(["", "9f8a1c"]),
)


@given(CHECKPOINTS)
def test_a_sidecar_goes_round(checkpoint):
    read = from_json(to_json(checkpoint), where="'x.json'", step=checkpoint.step)
    assert read == checkpoint
    assert read.upload == checkpoint.upload
    assert to_json(read) == to_json(checkpoint)


def understood_or_refused(data):
    try:
        checkpoint = from_json(data, where="'x.json'")
    except UnreadableFile as error:
        assert str(error).startswith("'x.json'")
    else:
        assert from_json(to_json(checkpoint), where="again").files == checkpoint.files


@given(st.binary())
@example(b"[" * 100_000)
@example(b'{"a":' * 100_000)
@example(b"9" * 10_000)
@example(b'{"schema": 2, "step": 1e400}')
@example(b"\xef\xbb\xbf{}")
@example(b"null")
@example(json.dumps(GOOD).encode("utf-16"))
def test_any_bytes_are_a_checkpoint_or_refused_with_one_sentence(data):
    understood_or_refused(data)


@given(JSON)
def test_any_json_is_a_checkpoint_or_refused_with_one_sentence(value):
    understood_or_refused(json.dumps(value).encode())


@given(st.dictionaries(st.sampled_from(["schema", "step", "files", "details", "upload"]), JSON))
def test_a_sidecar_with_any_field_altered_is_understood_or_refused(altered):
    understood_or_refused(json.dumps({**GOOD, **altered}).encode())


@given(st.data())
def test_a_sidecar_with_any_byte_altered_or_cut_off_is_understood_or_refused(data):
    whole = json.dumps(GOOD).encode()
    at = data.draw(st.integers(0, len(whole) - 1))
    understood_or_refused(whole[:at])
    understood_or_refused(whole[:at] + data.draw(st.binary(max_size=3)) + whole[at + 1 :])


@pytest.mark.parametrize(
    ("altered", "sentence"),
    [
        ({"step": -1}, "not a number of steps"),
        ({"step": True}, "not a number of steps"),
        ({"step": 120.0}, "not a number of steps"),
        ({"step": 121}, "says step 121, its name says 120"),
        ({"files": {}}, "names no files"),
        ({"files": []}, "not a sidecar"),
        ({"files": {"../up": GOOD["files"]["model.ckpt"]}}, "not a safe name"),
        ({"files": {"m": {"bytes": -1, "checksum": CHECKSUM}}}, "-1 is not a size"),
        ({"files": {"m": {"bytes": True, "checksum": CHECKSUM}}}, "True is not a size"),
        ({"files": {"m": {"bytes": 1.5, "checksum": CHECKSUM}}}, "not a int"),
        ({"files": {"m": {"bytes": 1, "checksum": "sha256:"}}}, "not a checksum"),
        ({"files": {"m": {"bytes": 1}}}, "not a sidecar"),
        ({"details": []}, "not a dict"),
        ({"upload": "../up"}, "not a safe name"),
        ({"schema": "2"}, "no 'schema' number"),
    ],
)
def test_what_is_wrong_is_one_sentence(altered, sentence):
    with pytest.raises(UnreadableFile, match=sentence):
        from_json(json.dumps({**GOOD, **altered}).encode(), where="'x'", step=120)


@pytest.mark.parametrize("schema", [1, 3, 10**30])
def test_another_schema_is_for_another_curitorch(schema):
    with pytest.raises(OtherSchema, match=f"schema {schema}"):
        from_json(json.dumps({**GOOD, "schema": schema}).encode(), where="'x'")


def test_unknown_keys_of_the_same_schema_are_let_be():
    assert from_json(json.dumps({**GOOD, "more": 1}).encode(), where="'x'").step == 120


@pytest.mark.parametrize("step", [0, 7, 99_999_999, 100_000_000, 2**63 - 1])
def test_names_of_steps_go_round(step):
    assert step_of(folder_name(step)) == step
    assert step_of(sidecar_name(step)) == step


@pytest.mark.parametrize(
    "name",
    [
        *("step-7", "step-000000007", "step-0000000a", "step-00000007.ckpt", "step-00000007.json "),
        *(
            "Xstep-00000007",
            "step--0000007",
            "step-0000000\u0667",
            "step-" + "9" * 5000,
            "",
            "lease",
        ),
    ],
)
def test_each_step_has_one_name_and_no_other(name):
    assert step_of(name) is None


def test_details_that_json_has_no_form_for_are_refused():
    files = {"m": StoredFile(1, CHECKSUM)}
    with pytest.raises(TypeError):
        to_json(StoredCheckpoint(1, files, {"x": object()}))
    itself = {}
    itself["itself"] = itself
    with pytest.raises(ValueError, match="Circular"):
        to_json(StoredCheckpoint(1, files, itself))
