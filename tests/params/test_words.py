from pathlib import Path

import pytest

from curitorch.params.words import from_word, metavar, to_word

HOSTILE = ["", " ", "none", "None", "'", '"', '"none"', "$HOME", "`id`", "--x", "-1", "a\nb", "é☃",
           "\\", "=", "null", "[]", "{}", "true", "*", "%s", "\t", '"a', "\udcff"]  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("hint", [str, str | None])
def test_every_text_survives_as_itself(text, hint):
    assert from_word(hint, to_word("name", hint, text)) == text


def test_a_plain_text_is_its_own_word():
    assert to_word("name", str, '"none"') == '"none"'
    assert to_word("name", str | None, "some") == "some"


@pytest.mark.parametrize(
    ("hint", "value", "word"),
    [
        (int, -1, "-1"),
        (float, 3e-7, "3e-07"),
        (float, 64, "64"),
        (float, float("-inf"), "-inf"),
        (bool, False, "false"),
        (int | None, None, "none"),
        (list[str], ["", "a b"], '["", "a b"]'),
        (list[int], [], "[]"),
        (list[float] | None, None, "none"),
        (tuple[int, ...], (1, 2), "[1, 2]"),
        (tuple[int, str], (1, "x"), '[1, "x"]'),
        (tuple, (), "[]"),
        (list[list[int | None]], [[1, None]], "[[1, null]]"),
        (dict[str, tuple[int, int]], {"é": (1, 2)}, '{"é": [1, 2]}'),
        (dict, {"a": {"b": None}}, '{"a": {"b": null}}'),
        (dict[str, str], {"x": "\0"}, '{"x": "\\u0000"}'),
        (Path, Path("/a b/$c"), "/a b/$c"),
    ],
)
def test_each_type_has_its_word(hint, value, word):
    assert to_word("name", hint, value) == word
    read = from_word(hint, word)
    assert (read == value and type(read) is type(value)) or (hint, read) == (float, value)


def test_half_surrogates_cross_inside_json():
    word = to_word("name", list[str], ["\ud800"])
    assert from_word(list[str], word) == ["\ud800"]
    word.encode()


@pytest.mark.parametrize(
    ("hint", "value", "sentence"),
    [
        (str, "a\0b", "no command line can carry"),
        (str, "\ud800", "no command line can carry"),
        (str, 3, "name is 3, which would arrive as '3'. Write it as TEXT can hold it."),
        (str, None, "would arrive as 'None'"),
        (int, True, "name is True"),
        (int, 1.5, "name is 1.5"),
        (int, None, "'None' is not a whole number"),
        (float, "3e-7", "would arrive as 3e-07"),
        (bool, 1.5, "would arrive as True"),
        (list[int], [1, True], "True is of type bool, expected int"),
        (list[int], (1, 2), "would arrive as [1, 2]"),
        (dict, {"shape": (1, 2)}, "would arrive as {'shape': [1, 2]}"),
        (dict, {1: 2}, "has the key 1"),
        (dict, {"x": b""}, "name['x'] is b'' of type bytes"),
        (tuple[int, int], (1,), "has 1 elements, expected 2"),
    ],
)
def test_what_would_not_arrive_as_it_is_is_refused(hint, value, sentence):
    with pytest.raises(ValueError) as refusal:
        to_word("name", hint, value)
    assert sentence in str(refusal.value)


@pytest.mark.parametrize(
    ("hint", "word", "sentence"),
    [
        (int, "3.5", "'3.5' is not a whole number. Write for example 64."),
        (float, "much", "'much' is not a number. Write for example 3e-7."),
        (bool, "maybe", "'maybe' is not a truth value. Write true or false."),
        (dict, "width=3", "is not JSON"),
        (list[int], '["a"]', "'a' is of type str, expected int."),
        (list[int], "{}", "{} is of type dict, expected list[int]."),
        (int, "none", "'none' is not a whole number"),
    ],
)
def test_a_wrong_word_gets_a_sentence(hint, word, sentence):
    with pytest.raises(ValueError) as refusal:
        from_word(hint, word)
    assert sentence in str(refusal.value)


@pytest.mark.parametrize("hint", [object, set[int], int | str, complex])
def test_a_type_without_a_word_is_refused(hint):
    with pytest.raises(TypeError, match="have no word on a command line"):
        metavar(hint)


def test_a_hand_typed_quote_stays_as_it_is():
    assert from_word(str | None, '"half') == '"half'
    assert from_word(bool, "Yes") is True
