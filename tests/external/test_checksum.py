import hashlib
import json
import os
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from curitorch.external.checksum import (
    Checksum,
    UnknownChecksum,
    checksum,
    kind_of,
    matches,
    read_through,
)
from curitorch.external.manifest import read_manifest
from curitorch.external.schema import UnreadableFile

EMPTY = {  # from the specifications
    "xxh3": "xxh3:99aa06d3014798d86001c324468d497f",
    "sha256": "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
}
ABC = {
    "xxh3": "xxh3:06b05ab6733a618578af5f94892f3950",
    "sha256": "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
}
OLD_MANIFEST = """{
  "schema": 1, "completed": "2026-11-21T10:00:00+00:00", "step": 7, "epoch": 2, "attempts": 1,
  "files": {"model.ckpt": {"bytes": 7, "checksum":
    "sha256:9a129038d9a00aed0cf6a7ea059ca50a813449061ab87848cf1a13eafdf33b2c"}}
}"""
PIECE = 1 << 20


@pytest.fixture
def path(tmp_path):
    return tmp_path / "a file with spaces, ü and $HOME"


@pytest.mark.parametrize("kind", ["xxh3", "sha256"])
def test_a_checksum_is_the_one_of_the_specification(path, kind):
    path.write_bytes(b"")
    assert checksum(path, kind=kind) == EMPTY[kind] == Checksum(kind).text
    path.write_bytes(b"abc")
    assert checksum(path, kind=kind) == ABC[kind]


def test_new_records_get_xxh3(path):
    path.write_bytes(b"abc")
    assert checksum(path) == ABC["xxh3"]


@pytest.mark.parametrize("size", [0, 1, PIECE - 1, PIECE, PIECE + 1, 3 * PIECE])
def test_files_of_any_size_are_read_to_their_end(path, size):
    content = os.urandom(size)
    path.write_bytes(content)
    assert checksum(path, kind="sha256") == "sha256:" + hashlib.sha256(content).hexdigest()
    whole = Checksum()
    whole.update(content)
    assert checksum(path) == whole.text


@given(st.lists(st.binary(max_size=300)), st.sampled_from(["xxh3", "sha256"]))
def test_pieces_have_the_checksum_of_the_whole(pieces, kind):
    whole, one_by_one = Checksum(kind), Checksum(kind)
    whole.update(b"".join(pieces))
    for piece in pieces:
        one_by_one.update(bytearray(piece))
    assert one_by_one.text == whole.text
    assert one_by_one.bytes == whole.bytes == sum(map(len, pieces))


@given(st.binary(min_size=1, max_size=400), st.data())
def test_any_altered_missing_or_moved_byte_is_found(content, data):
    at = data.draw(st.integers(0, len(content) - 1))
    other = data.draw(st.integers(1, 255))
    altered = bytes([*content[:at], content[at] ^ other, *content[at + 1 :]])
    shorter = content[:at] + content[at + 1 :]
    turned = content[at:] + content[:at]
    for kind in ("xxh3", "sha256"):
        found = Checksum(kind)
        found.update(content)
        for wrong in {altered, shorter, turned} - {content}:
            there = Checksum(kind)
            there.update(wrong)
            assert there.text != found.text


@pytest.mark.parametrize("kind", ["xxh3", "sha256"])
def test_a_file_is_compared_by_the_kind_that_was_recorded(path, kind):
    path.write_bytes(b"abc")
    assert matches(path, ABC[kind])
    path.write_bytes(b"abd")
    assert not matches(path, ABC[kind])


def test_an_open_file_is_read_from_its_first_byte_and_stays_where_it_is(path):
    path.write_bytes(b"abcdefgh")
    with path.open("rb", buffering=0) as file:
        file.seek(5)
        found = read_through(file.fileno(), most=3)
        assert (found.text, found.bytes) == (ABC["xxh3"], 3)
        assert read_through(file.fileno(), most=100).bytes == 8
        assert file.tell() == 5


def test_a_file_in_memory_has_a_checksum_by_its_descriptor(path):
    descriptor = os.memfd_create("staged")
    os.write(descriptor, b"abc")
    path.symlink_to(f"/proc/self/fd/{descriptor}")
    assert checksum(path) == ABC["xxh3"]
    os.close(descriptor)


def test_a_file_that_cannot_be_read_is_an_error_not_a_checksum(tmp_path):
    with pytest.raises(FileNotFoundError):
        checksum(tmp_path / "nowhere")
    with pytest.raises(IsADirectoryError):
        checksum(tmp_path)


def test_an_unknown_kind_is_one_sentence_that_says_what_to_do(path):
    path.write_bytes(b"abc")
    sentence = (
        r"^The record of '.*HOME' has a checksum of the kind 'blake9', this "
        r"curitorch knows xxh3, sha256\. Upgrade it: pip install --upgrade curitorch\.$"
    )
    with pytest.raises(UnreadableFile, match=sentence):
        matches(path, "blake9:" + "0" * 32)
    with pytest.raises(UnknownChecksum):
        Checksum("blake9")


@pytest.mark.parametrize(
    "recorded",
    [
        *("", ":", "xxh3", "xxh3:", "abc", ABC["xxh3"][5:], ABC["xxh3"] + "0", ABC["xxh3"][:-1]),
        *(ABC["xxh3"].upper(), ABC["xxh3"] + "\n", "xxh3:" + ABC["sha256"][7:], "sha256:00000000"),
    ],
)
def test_what_is_no_checksum_is_one_sentence(recorded):
    with pytest.raises(UnreadableFile, match=r"'x\.json' has .*which is not a checksum: torn"):
        kind_of(recorded, where="'x.json'")


def test_the_manifest_of_an_older_curitorch_opens_and_is_verified(tmp_path):
    (tmp_path / "model.ckpt").write_bytes(b"weights")
    (tmp_path / "manifest.json").write_text(OLD_MANIFEST)
    assert read_manifest(tmp_path, verify=True).step == 7
    (tmp_path / "model.ckpt").write_bytes(b"weightz")
    with pytest.raises(UnreadableFile, match="altered"):
        read_manifest(tmp_path, verify=True)


def test_a_manifest_with_an_unknown_checksum_is_refused_when_it_is_verified(tmp_path):
    (tmp_path / "model.ckpt").write_bytes(b"weights")
    record = json.loads(OLD_MANIFEST)
    record["files"]["model.ckpt"]["checksum"] = "blake9:" + "0" * 32
    (tmp_path / "manifest.json").write_text(json.dumps(record))
    assert read_manifest(tmp_path).step == 7
    with pytest.raises(UnreadableFile, match=r"model\.ckpt.*kind 'blake9'.*Upgrade"):
        read_manifest(tmp_path, verify=True)


def test_nothing_heavy_is_imported_before_a_file_is_hashed():
    program = (
        "import sys\nfrom curitorch.external.checksum import Checksum, matches\n"
        "assert not {'torch', 'xxhash', 'lightning'} & set(sys.modules)\n"
        "Checksum()\nassert 'xxhash' in sys.modules\nassert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
