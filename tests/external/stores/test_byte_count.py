import pytest

from curitorch.external.stores.byte_count import parse_bytes


@pytest.mark.parametrize(
    ("text", "count"),
    [
        *(("1", 1), ("4096", 4096), ("7B", 7), ("50GB", 50 * 10**9), ("500M", 5 * 10**8)),
        *(("8GiB", 8 << 30), ("8gib", 8 << 30), ("3 kB", 3000), ("3 KiB", 3072), ("2Ti", 2 << 40)),
        *(("1.5G", 1_500_000_000), (" 1.5 MiB ", 3 << 19), ("4611686018427387903", 2**62 - 1)),
    ],
)
def test_a_number_of_bytes_is_read_as_people_write_it(text, count):
    assert parse_bytes(text) == count


@pytest.mark.parametrize(
    "text",
    [
        *("", "0", "-1", "0.1", "much", "GB", "1e9", "5 GB!", "1_000", "1,5G", "nan", "inf", "٣GB"),
        *("5PB", "1iB", "5BB", "4611686018427387904", "9999999T", "1" * 5000, "0x10", "5\nGB GB"),
    ],
)
def test_what_is_none_is_refused_with_an_example(text):
    with pytest.raises(ValueError, match=r"not a number of bytes\. Write 500M, 20GB or 8GiB"):
        parse_bytes(text)
