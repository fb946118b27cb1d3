"""Text for messages."""

import pytest

from envs.text import brief, one_line, place_of, shortened


class Unprintable:
    def __repr__(self):
        raise KeyError("no")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ([1, "a"], "[1, 'a']"),
        ("x" * 58, repr("x" * 58)),
        ("x" * 59, f"'{'x' * 44}... (61 characters)"),
        (Unprintable(), "<Unprintable without a repr: KeyError>"),
        (10**5000, "<int without a repr: ValueError>"),
    ],
    ids=["list", "fits", "long", "unprintable", "digits"],
)
def test_values_are_brief(value, text):
    assert brief(value) == text


@pytest.mark.parametrize("length", [10, 11, 99])
def test_the_middle_of_a_long_text_is_left_out(length):
    text = "".join(map(chr, range(65, 165)))
    found = shortened(text, length)
    start, end = found.split(" ... ")
    assert len(found) <= length and text.startswith(start) and text.endswith(end) and len(start) == len(end)


def test_a_short_text_stays():
    assert shortened("x" * 10, 10) == "x" * 10


def test_exceptions():
    with pytest.raises(ValueError) as raised:
        int("a\nb", base=36)
    assert one_line(ValueError("a\n  b")) == "a b" and place_of(raised.value).startswith("test_text.py:")
