"""What a word, a sentence, a paragraph and a letter are, and what passes for plain English."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from envs.writing.reading import Reading, normal

PROMPT = "Write a short text about the sea, in plain English and whole sentences."
GOOD = "The sea is never quite still. You can hear it long before you see it."


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("I don't know", ["I", "don't", "know"]),
        ("I don’t know", ["I", "don't", "know"]),
        ("a well-known fact - 3.5 or 1,000 of them", ["a", "well-known", "fact", "3.5", "or", "1,000", "of", "them"]),
        ("no\u200bbreak, caf\u00e9, cafe\u0301", ["nobreak", "café", "café"]),
        ("Ｆｕｌｌ width\u00a0and\u3000space", ["Full", "width", "and", "space"]),
        ("snake_case & 🙂 'quoted'", ["snake", "case", "quoted"]),
        ("привет мир", ["привет", "мир"]),
        ("... -- !", []),
    ],
)
def test_words(text, words):
    assert Reading(normal(text)).words == words


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("One. Two! Three?", 3),
        ("It costs 3.50 dollars. Really?!", 2),
        ("Mr. Smith met Dr. J. Brown. They talked.", 2),
        ("It was I. Nobody else.", 2),
        ('He said "Stop." Then he left.', 2),
        ("Well... maybe. Yes", 3),
        ("これは本です。あれも本です。", 2),
        ("One line\nthat goes on.\n\nAnother without an end", 2),
        ("www.example.com is down.", 1),
        ("...", 0),
    ],
)
def test_sentences(text, count):
    assert len(Reading(normal(text)).sentences) == count


@pytest.mark.parametrize(
    ("text", "count"),
    [("a\nb", 1), ("a\n\nb", 2), ("a\r\n \t\r\nb\n\n\n\nc\n\n", 3), ("a\u2029b", 2), ("a\u2028b", 1), ("", 0)],
)
def test_paragraphs(text, count):
    assert len(Reading(normal(text)).paragraphs) == count


def test_letters():
    letters = Reading(normal("Éé E\u0301 ﬁ ẞ")).letters
    assert (letters["e"], letters["f"], letters["i"], letters["s"], sum(letters.values())) == (3, 1, 1, 2, 7)


@settings(max_examples=40)
@given(st.text())
def test_the_normal_form_stays_as_it_is(text):
    once = normal(text)
    assert normal(once) == once
    Reading(once).fault(prompt=PROMPT, words=range(5, 81), capitals=True)


def test_plain_english():
    assert Reading(GOOD).fault(prompt=PROMPT, words=range(5, 81), capitals=True) == ""
    assert Reading(GOOD.lower()).fault(prompt=PROMPT, words=range(5, 81), capitals=False) == ""
    assert Reading(GOOD.upper()).fault(prompt=PROMPT, words=range(5, 81), capitals=True) == ""


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "0 words, where 5 to 80"),
        ("?! I am.", "2 words"),
        (f"{GOOD} " * 8, "120 words"),
        ("The sea is the sea is the sea is.", "repeats itself"),
        ("The sea sea is all that there is.", "repeats itself"),
        (f"{GOOD} {GOOD}", "repeats itself"),
        ("Море is the sea and it is big.", "not those of English"),
        ("The seа is big, and it is here.", "not those of English"),  # a Cyrillic "а"
        ("The sea is xkcdqwrt and it is big.", "a word in it is none"),
        ("The seaaaaaaaaaaaaaaaaaaaaaaaaaaa is very big.", "a word in it is none"),
        ("Sea waves sand boats fish salt wind.", "commonest of English"),
        ("It is what it was, and so are we.", "commonest of English"),
        ("The sea is very big", "has no end"),
        ("The sea is big. it is old.", "small letter"),
        (PROMPT, "copied"),
        ("I will write a short text about the sea, and it is this.", "copied"),
        (", ".join(PROMPT.split()) + ".", "copied"),
    ],
)
def test_other_texts_are_none(text, fault):
    assert fault in Reading(normal(text)).fault(prompt=PROMPT, words=range(5, 81), capitals=True)
