"""The one place that puts a prompt together, and the examples that it reads."""

from __future__ import annotations

import json

import pytest

from envs.chat import user
from envs.prompt_format import PromptFormat, read_turns

EXAMPLES = [
    {"role": "user", "content": "1 + 1"},
    {"role": "assistant", "content": "2"},
    {"role": "user", "content": "2 + 2"},
    {"role": "assistant", "content": "4"},
]


def test_system_prompt_then_examples_then_the_rows_own_chat():
    form = PromptFormat.of("Add.", EXAMPLES[:2], "What is {question}? {x}")
    own = [user("3 + 3"), {"role": "assistant", "content": "6"}, user("{question}")]
    assert form.messages(own) == [
        {"role": "system", "content": "Add."},
        {"role": "user", "content": "What is 1 + 1? {x}"},
        {"role": "assistant", "content": "2"},
        {"role": "user", "content": "3 + 3"},
        {"role": "assistant", "content": "6"},
        {"role": "user", "content": "What is {question}? {x}"},
    ]
    assert PromptFormat().messages(own) == own


def test_a_rows_own_system_message_stays_first_and_is_not_overruled():
    own = [{"role": "system", "content": "Subtract."}, user("3 - 3")]
    assert PromptFormat.of(None, EXAMPLES[:2], None).messages(own) == [own[0], *EXAMPLES[:2], own[1]]
    with pytest.raises(ValueError, match=r"system message of its own, 'Subtract\.', and system_prompt is set"):
        PromptFormat(system_prompt="Add.").messages(own)


@pytest.mark.parametrize("template", ["", "Be brief.", "{question} {question}", "{prompt}"])
def test_a_template_needs_its_placeholder_once(template):
    with pytest.raises(ValueError, match=r"prompt_template is .*\{question\} must stand in it exactly once"):
        PromptFormat.of(None, None, template)


@pytest.mark.parametrize(
    "given",
    [
        EXAMPLES,
        [{"prompt": "1 + 1", "completion": "2"}, ["2 + 2", "4"]],
        [{"prompt": [EXAMPLES[0]], "completion": "2"}, {"messages": EXAMPLES[2:]}],
    ],
)
def test_examples_in_every_form(given, tmp_path):
    assert read_turns(given) == tuple(EXAMPLES)
    if all(isinstance(item, dict) for item in given):
        path = tmp_path / "examples.jsonl"
        path.write_text("".join(f"{json.dumps(item)}\n" for item in given))
        assert read_turns(path) == read_turns(str(path)) == tuple(EXAMPLES)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([{"prompt": "1 + 1", "answer": "2"}], r"few_shot\[0\] is .*an example is"),
        ([["1 + 1", "2"], "2 + 2"], r"few_shot\[1\] is '2 \+ 2'"),
        ([["1 + 1", 2]], r"few_shot\[0\]"),
        ([EXAMPLES[0]], "few_shot ends with a question"),
        ([EXAMPLES[1]], r"few_shot\[0\] brings a turn of the assistant where one of the user must come"),
        ([{"role": "system", "content": "Add."}], r"turn of the system .*the setting system_prompt"),
        ({"1 + 1": 2}, "it must be a number of examples, a list of them, or a file"),
    ],
)
def test_examples_that_are_none(given, message):
    with pytest.raises(ValueError, match=message):
        read_turns(given)


def test_a_file_of_examples_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"few_shot is 'three': there is no such file"):
        read_turns("three")
    path = tmp_path / "examples.jsonl"
    path.write_text('{"prompt": "1 + 1", "completion": "2"}\n{"question": "2 + 2"}\n')
    with pytest.raises(ValueError, match=r"few_shot: row 1 of examples\.jsonl"):
        read_turns(path)


def test_an_example_is_known_by_its_question():
    form = PromptFormat.of(None, [["What  is\n1 + 1?", "2"]], "{question} Be brief.")
    asked = 'What is 1 + 1?\n\nReason step by step, then give the final answer on a last line "Answer: <answer>".'
    assert form.is_example([user("What is 1 + 1?")]) and form.is_example([user(asked)])
    assert form.is_example([{"role": "system", "content": "Add."}, user("What is 1 + 1?")])
    assert not form.is_example([user("What is 1 + 11?")]) and not PromptFormat().is_example([user("What is 1 + 1?")])
