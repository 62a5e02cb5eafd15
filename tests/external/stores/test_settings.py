import pytest
from hypothesis import given
from hypothesis import strategies as st

from curitorch.external.stores.settings import BadSettings, parse_settings, write_settings

KEYS = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,10}", fullmatch=True)


@given(st.dictionaries(KEYS, st.text()))
def test_settings_go_round(settings):
    assert parse_settings(write_settings(settings)) == settings


@given(st.text())
def test_any_line_is_understood_or_refused_with_one_sentence(line):
    try:
        settings = parse_settings(line)
    except BadSettings as error:
        assert repr(line) in str(error)
    else:
        assert parse_settings(write_settings(settings)) == settings


@pytest.mark.parametrize(
    ("line", "settings"),
    [
        ("", {}),
        ("root=/tmp/ckpt", {"root": "/tmp/ckpt"}),
        ("root = /a b ,on=x=y", {"root": "/a b", "on": "x=y"}),
        (r'root="/a,b = \"c\" \\"', {"root": r'/a,b = "c" \ '.strip()}),
        ("root=", {"root": ""}),
        ("root=/a,", {"root": "/a"}),
    ],
)
def test_the_rule_for_commas_equals_signs_and_quotes(line, settings):
    assert parse_settings(line) == settings


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("root", "has 'root' where a key=value is expected"),
        ("=x", "where a key=value is expected"),
        ("a=1,a=2", "gives 'a' twice"),
        ('a="1', "quotes that do not end"),
        ('a="1"2', "expected a comma"),
        ('a=1"2"', "expected a comma"),
        ("a=1,,b=2", "where a key=value is expected"),
    ],
)
def test_what_cannot_be_meant_is_one_sentence(line, sentence):
    with pytest.raises(BadSettings, match=sentence):
        parse_settings(line)
