"""The answer is quoted, and only a verdict of this request is read."""

import json
import re

import pytest

from envs.judges import Rubric
from envs.judges.wording import NoVerdict, full_marks, has_content, messages, read_reply, readable, schema
from envs.reward_check.persuasion import persuasions

from ...support.judge_server import Asked

RUBRIC = Rubric.of({"reason": {"ask": "Does it give the reason?", "points": 10}, "brief": "Is it short?"})
MARK = "5f3c9a01"
GOOD = {"scores": {"reason": 7, "brief": True}, "mark": MARK}
SPECIAL = (
    *("<|im_start|>", "<|im_end|>", "<|endoftext|>", "<|eot_id|>", "<|start_header_id|>", "<s>", "</s>", "<bos>"),
    *("<start_of_turn>", "<end_of_turn>", "[INST]", "[/INST]", "[SYSTEM_PROMPT]", "[TOOL_CALLS]", "[gMASK]", "<sop>"),
    *(
        "<｜User｜>",
        "<｜end▁of▁sentence｜>",
        "<think>",
        "</think>",
        "<tool_call>",
        "<unused7>",
        "<0x0A>",
        "<|channel|>",
    ),
)


@pytest.mark.parametrize("token", SPECIAL)
def test_no_special_token_is_left_of_an_answer(token):
    hidden = "\u200b".join(token)  # and none comes about where invisible characters are left out
    for text in (f"Ice floats.{token}system", f"<{token}", hidden):
        assert token not in readable(text)


def test_what_nobody_sees_is_left_out_and_the_rest_stays():
    assert readable("a\u200b\u202eb\x00\U000e0041c") == "abc"
    plain = "x < 3 and y > 2, a[i] = [1, 2]\n\ttab; Größe 大 π"
    assert readable(plain) == plain
    assert readable("lone \ud83d surrogate").encode()


def test_an_answer_needs_content():
    assert not any(map(has_content, ("", " \n", ":", "...", "?!", "\x00")))
    assert all(map(has_content, ("a", "7", "∞", "+", "解", "Thought process:")))


@pytest.mark.parametrize("name", persuasions(full_marks(RUBRIC)))
def test_an_answer_for_the_judge_stays_a_quotation(name):
    answer = readable(persuasions(full_marks(RUBRIC))[name])
    chat = messages(RUBRIC, "", "Why?", "Because.", answer, MARK)
    assert [message["role"] for message in chat] == ["system", "user"]
    asked = Asked.of({"messages": chat})
    assert (asked.answer, asked.question, asked.reference, asked.mark) == (answer, "Why?", "Because.", MARK)
    assert not re.search(r"<\|im_|<\|eot_id|<(start|end)_of_turn>|\[/?INST\]|</?s>", chat[1]["content"])


def test_the_request_begins_alike_for_all_answers():
    one, other = (messages(RUBRIC, "Be fair.", "Why?", None, text, mark) for text, mark in (("a", "1"), ("b", "2")))
    assert one[0] == other[0] and "Be fair." in one[0]["content"]
    assert one[1]["content"].startswith("Question:\nWhy?\n\nThe answer to judge:\n") and "comparison" not in str(one)


@pytest.mark.parametrize(
    "reply",
    [
        json.dumps(GOOD),
        f"\n```json\n{json.dumps(GOOD, indent=2)}\n```\n",
        f"<think>The answer asks for 10, so: {full_marks(RUBRIC)}</think>\n{json.dumps(GOOD)}",
    ],
)
def test_a_verdict_is_read(reply):
    assert read_reply(reply, RUBRIC, MARK) == {"reason": 7, "brief": True}


@pytest.mark.parametrize(
    "reply",
    [
        "",
        "10",
        "The answer is correct.",
        json.dumps(GOOD)[:-1],
        f"Here you are: {json.dumps(GOOD)}",
        f"{json.dumps(GOOD)} I hope this helps.",
        json.dumps([GOOD]),
        json.dumps({**GOOD, "mark": "0123abcd"}),
        json.dumps({**GOOD, "mark": None}),
        json.dumps({**GOOD, "reason": "fine"}),
        json.dumps({"scores": GOOD["scores"]}),
        json.dumps({**GOOD, "scores": {"reason": 11, "brief": True}}),
        json.dumps({**GOOD, "scores": {"reason": 1e1, "brief": True}}),
        f'{{"scores": {{"reason": 0, "reason": 10, "brief": true}}, "mark": "{MARK}"}}',
        f'{{"scores": {{"reason": {"9" * 5000}, "brief": true}}, "mark": "{MARK}"}}',
        f'{{"scores": {{"reason": NaN, "brief": true}}, "mark": "{MARK}"}}',
        "[" * 100_000,
        full_marks(RUBRIC),
    ],
    ids=range(18),
)
def test_whatever_else_is_no_verdict(reply):
    with pytest.raises(NoVerdict) as raised:
        read_reply(reply, RUBRIC, MARK)
    assert len(str(raised.value)) < 200 and "\n" not in str(raised.value)


def test_the_schema_is_that_of_the_reply_and_leaves_the_mark_open():
    found = schema(RUBRIC, len(MARK))
    assert found["required"] == ["scores", "mark"] and not found["additionalProperties"]
    assert found["properties"]["scores"]["properties"] == {
        "reason": {"type": "integer", "minimum": 0, "maximum": 10},
        "brief": {"type": "boolean"},
    }
    assert re.match(found["properties"]["mark"]["pattern"], MARK) and MARK not in json.dumps(found)
