import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curitorch.external.checksum import Checksum
from curitorch.external.schema import UnreadableFile
from curitorch.external.stores.local.parts import Part, PartsDigest, PartsSource, from_json, to_json


def text_of(data):
    digest = Checksum()
    digest.update(data)
    return digest.text


PIECES = st.lists(st.tuples(st.sampled_from("abc"), st.binary(max_size=50)), max_size=8)


def laid_out(pieces, folder):
    """Write each file's pieces one behind the other; returns the parts and the paths."""
    contents, parts = {"a": b"before", "b": b"", "c": b""}, []
    for name, data in pieces:
        parts.append(Part(len(data), text_of(data), name, len(contents[name])))
        contents[name] += data
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return parts, {name: folder / name for name in contents}


@settings(max_examples=60)
@given(PIECES, st.lists(st.tuples(st.integers(0, 400), st.integers(0, 400)), max_size=5))
def test_any_range_of_the_whole_is_read_from_its_parts(tmp_path_factory, pieces, ranges):
    parts, files = laid_out(pieces, tmp_path_factory.mktemp("x"))
    whole = b"".join(data for _, data in pieces)
    assert from_json(to_json(parts), where="It") == parts
    with PartsSource(parts, files) as source:
        assert source.size == len(whole)
        for start, end in [*ranges, (0, len(whole))]:
            start, end = min(start, len(whole)), min(end, len(whole))
            target = bytearray(max(0, end - start))
            source.read_into(memoryview(target), start)
            assert target == whole[start : max(start, end)]
        with pytest.raises(UnreadableFile, match="torn"):
            source.read_into(memoryview(bytearray(1)), len(whole))


@settings(max_examples=60)
@given(PIECES, st.integers(1, 20), st.data())
def test_each_altered_byte_is_found_and_each_missing_or_added_one(pieces, step, data):
    parts = [Part(len(content), text_of(content), name, 0) for name, content in pieces]
    whole = b"".join(content for _, content in pieces)

    def told(content):
        digest = PartsDigest(parts, where="It")
        for start in range(0, len(content), step):
            digest.update(content[start : start + step])
        digest.finish()

    told(whole)
    with pytest.raises(UnreadableFile, match="longer"):
        told(whole + b"x")
    if whole:
        with pytest.raises(UnreadableFile, match=r"torn|altered"):
            told(whole[:-1])
        place = data.draw(st.integers(0, len(whole) - 1))
        with pytest.raises(UnreadableFile, match="altered"):
            told(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])


@settings(max_examples=200)
@given(
    st.binary(max_size=60)
    | st.recursive(
        st.none() | st.integers() | st.text(max_size=5) | st.just("xxh3:" + 32 * "0"),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["schema", "parts", "bytes", "checksum", "file", "at"]), inner
            )
        ),
        max_leaves=12,
    ).map(lambda record: json.dumps(record).encode())
)
def test_whatever_an_index_holds_is_parts_or_a_sentence(data):
    try:
        parts = from_json(data, where="The index")
    except UnreadableFile as error:
        assert "The index" in str(error)
    else:
        assert all(part.bytes >= 0 and part.at >= 0 for part in parts)


@pytest.mark.parametrize(
    "change",
    [
        {"file": "../secret"},
        {"file": "a/b"},
        {"bytes": -1},
        {"bytes": 1.5},
        {"bytes": True},
        {"at": "0"},
        {"checksum": "none"},
        {"more": 1},
    ],
)
def test_an_index_that_names_no_parts_is_refused(change):
    part = {"bytes": 3, "checksum": text_of(b"abc"), "file": "a", "at": 0}
    good = {"schema": 1, "parts": [part]}
    assert from_json(json.dumps(good).encode(), where="It") == [Part(**part)]
    bad = {"schema": 1, "parts": [{**part, **change}]}
    with pytest.raises(UnreadableFile, match="It "):
        from_json(json.dumps(bad).encode(), where="It")
    with pytest.raises(UnreadableFile, match="schema"):
        from_json(json.dumps({**good, "schema": 2}).encode(), where="It")
