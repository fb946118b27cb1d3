"""Payloads, edits and forms."""

from envs.attack.moves import EDITS, forms, leaves, payloads

INFO = {"key": [7, {"blob": "NzU="}], "hex": "3735", "note": "id: gold_75"}


def found(prompt="", info=None):
    return {payload.name: payload.find(prompt, info or {}) for payload in payloads([info or {}])}


def test_spans_of_the_prompt():
    texts = found("Add 12 to -3.5, please")
    assert (texts["number 1 of the prompt"], texts["number -1 of the prompt"]) == ("12", "-3.5")
    assert texts["number 3 of the prompt"] is None and texts["word -1 of the prompt"] == "please"
    assert texts["every number of the prompt"] == "12, -3.5"


def test_the_info_is_read_in_its_disguises():
    texts = found(info=INFO)
    assert texts["info['key'][1]['blob'] decoded from base64"] == texts["info['hex'] decoded from hexadecimal"] == "75"
    assert texts["info['note'], its last word"] == texts["info['note'], its first number"] == "75"
    assert texts["info['note'] decoded from hexadecimal"] is None
    assert dict(leaves(INFO))[("key", 0)] == "7"


def test_the_first_edit_changes_nothing_and_all_take_any_text():
    assert EDITS[0].apply("a b") == "a b"
    assert all(isinstance(edit.apply(text), str) for edit in EDITS for text in ("", " ", "a b", "\x00"))


def test_forms_that_the_prompt_names_come_first():
    weights = {form.name: form.weight for form in forms(["Reply with RESULT = <number>", "or \\boxed{}"])}
    assert weights["after 'RESULT = '"] == weights["in a box"] == 8 > weights["as an answer line"]
    lines = next(form for form in forms([""]) if form.name == "in answer tags, line by line")
    assert lines.apply("1\n2") == "<answer>1</answer>\n<answer>2</answer>"
