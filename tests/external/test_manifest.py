import json

import pytest

from curitorch.external.manifest import is_complete, read_manifest, write_manifest
from curitorch.external.schema import NewerSchema, UnreadableFile


@pytest.fixture
def run(tmp_path):
    run = tmp_path / "run with spaces"
    run.mkdir()
    (run / "model.ckpt").write_bytes(b"weights")
    write_manifest(run, [run / "model.ckpt"], step=7, epoch=2, attempts=1)
    return run


def test_a_manifest_goes_round(run):
    manifest = read_manifest(run, verify=True)
    assert (manifest.step, manifest.epoch, manifest.attempts) == (7, 2, 1)
    assert list(manifest.files) == ["model.ckpt"]
    assert is_complete(run)


def test_a_moved_run_stays_complete(run, tmp_path):
    run.rename(tmp_path / "moved")
    assert is_complete(tmp_path / "moved")


def test_a_run_without_a_manifest_is_not_complete(run):
    (run / "manifest.json").unlink()
    assert not is_complete(run)
    assert not is_complete(run / "nowhere")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("{", "not whole JSON"),
        ("", "not whole JSON"),
        ("[]", "expected a JSON object"),
        ("{}", "no 'schema'"),
        ('{"schema": 1}', "not a manifest"),
        ('{"schema": 1, "files": 3, "step": 1, "epoch": 1, "attempts": 1}', "not a manifest"),
        ('{"schema": 99}', "schema 99, this curitorch reads up to 1"),
    ],
)
def test_a_torn_foreign_or_newer_manifest_is_one_sentence(run, text, sentence):
    (run / "manifest.json").write_text(text)
    with pytest.raises(UnreadableFile, match=sentence):
        read_manifest(run)
    if "99" not in text:
        assert not is_complete(run)


def test_what_a_newer_curitorch_finished_is_not_taken_for_unfinished(run):
    (run / "manifest.json").write_text('{"schema": 99}')
    with pytest.raises(NewerSchema, match="pip install --upgrade"):  # not to be trained again
        is_complete(run)


def test_a_torn_or_missing_file_is_never_complete(run):
    (run / "model.ckpt").write_bytes(b"weigh")
    assert not is_complete(run)
    (run / "model.ckpt").unlink()
    with pytest.raises(UnreadableFile, match="is missing"):
        read_manifest(run)


def test_an_altered_file_of_the_same_size_is_found_when_verified(run):
    (run / "model.ckpt").write_bytes(b"weightz")
    assert is_complete(run)
    with pytest.raises(UnreadableFile, match="altered"):
        read_manifest(run, verify=True)


def test_a_file_outside_the_run_is_refused(run, tmp_path):
    (tmp_path / "other").write_text("")
    with pytest.raises(ValueError, match="subpath"):
        write_manifest(run, [tmp_path / "other"], step=1, epoch=1, attempts=1)


def test_unknown_keys_of_the_same_schema_are_let_be(run):
    record = json.loads((run / "manifest.json").read_text())
    (run / "manifest.json").write_text(json.dumps({**record, "more": 1}))
    assert is_complete(run)
