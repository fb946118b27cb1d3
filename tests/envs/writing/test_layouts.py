"""Layouts: what was written can be taken apart again, and nothing else can."""

import pytest

from envs.writing.layouts import Items, JsonList, JsonObject, LayoutError, Parts, Quoted, Titled, layouts

ONE, TWO = "It is cold.", "We stay at home."


@pytest.mark.parametrize("count", range(1, 7))
def test_what_was_written_can_be_taken_apart(count):
    sentences = [f"This is sentence {number}." for number in range(count)]
    for layout in layouts(count):
        assert layout.body(layout.write(sentences)).split() == " ".join(sentences).split()
        assert layout.ask.endswith(".")


@pytest.mark.parametrize(
    ("layout", "text"),
    [
        (Items(2, False), f"- {ONE}\n\n* {TWO}"),
        (Items(2, True), f"1) {ONE}\n2. {TWO}"),
        (JsonObject(("a", "b")), f'```json\n{{"b": "{TWO}", "a": "{ONE}"}}\n```'),
        (JsonList(2), f'[\n "{ONE}",\n "{TWO}"\n]'),
        (Titled(), f"<<Cold>>\n\n{ONE} {TWO}"),
        (Quoted(), f'"{ONE} {TWO}"'),
        (Parts(), f"{ONE}\n\n  ***  \n{TWO}"),
    ],
)
def test_other_spellings(layout, text):
    assert layout.body(text).split() == f"{ONE} {TWO}".split()


@pytest.mark.parametrize(
    ("layout", "text"),
    [
        (Items(2, False), f"- {ONE}"),
        (Items(2, False), f"Here it is:\n- {ONE}\n- {TWO}"),
        (Items(2, False), f"- {ONE}\n{TWO}"),
        (Items(2, False), f"- {ONE} {TWO}\n- {ONE}"),
        (Items(2, True), f"1. {ONE}\n1. {TWO}"),
        (JsonObject(("a", "b")), f'{{"a": "{ONE}"}}'),
        (JsonObject(("a", "b")), f'{{"a": "{ONE}", "b": "{TWO}", "c": "{TWO}"}}'),
        (JsonObject(("a", "b")), f'{{"a": "{ONE}", "b": "{TWO}", "a": "{TWO}"}}'),
        (JsonObject(("a", "b")), f'{{"a": "{ONE}", "b": ["{TWO}"]}}'),
        (JsonObject(("a", "b")), f'["{ONE}", "{TWO}"]'),
        (JsonObject(("a", "b")), f'Sure: {{"a": "{ONE}", "b": "{TWO}"}}'),
        (JsonList(2), f'["{ONE}", 2]'),
        (JsonList(2), f'["{ONE}", " "]'),
        (JsonList(2), "[" * 4_000),
        (Titled(), f"<< >>\n{ONE}"),
        (Titled(), f"Cold\n{ONE}"),
        (Titled(), f"<<{'word ' * 11}>>\n{ONE}"),
        (Quoted(), ONE),
        (Quoted(), f'"{ONE}" and "{TWO}"'),
        (Parts(), f"{ONE}\n***"),
        (Parts(), f"{ONE} *** {TWO}"),
    ],
)
def test_anything_else_is_refused_with_its_cause(layout, text):
    with pytest.raises(LayoutError, match=r"\w+ \w+"):
        layout.body(text)
