"""The format reward: forms by name, by template and by function, and texts made to fool them."""

import math
import re

import gymnasium
import pytest
from gymnasium.envs.registration import EnvSpec
from hypothesis import given, settings
from hypothesis import strategies as st

from envs import Completion, FormatReward
from envs.math.answers import ANSWER_STYLES
from envs.wrappers.formats import TEMPLATES, find_form, follows

THINK, THINK_ANSWER = TEMPLATES["think"], TEMPLATES["think_answer"]


@pytest.mark.parametrize(
    ("template", "text", "found"),
    [
        (THINK, "<think>a</think>b", True),
        (THINK, "\n<think>\na\n\nb</think>\n\nc\n", True),
        (THINK, "a<think>b</think>c", False),
        (THINK, "<think>a</think>", False),
        (THINK, "<think>a</think> \n", False),
        (THINK, "<think> \n</think>b", False),
        (THINK, "<think>a", False),
        (THINK, "a</think>b", False),
        (THINK, "</think>a<think>b", False),
        (THINK, "<think>a</think>b</think>c", False),
        (THINK, "<think><think>a</think>b", False),
        (THINK, "<think>a</think>b<think>c</think>d", False),
        (THINK, "<Think>a</Think>b", False),
        (THINK, "", False),
        (THINK_ANSWER, "<think>a</think><answer>b</answer>", True),
        (THINK_ANSWER, "<think>\na\n</think>\n\n<answer>\nb\n</answer>\n", True),
        (THINK_ANSWER, "<think>a</think>so<answer>b</answer>", False),
        (THINK_ANSWER, "<think>a</think><answer>b</answer>c", False),
        (THINK_ANSWER, "<think>a</think><answer>b</answer><answer>c</answer>", False),
        (THINK_ANSWER, "<answer>b</answer><think>a</think>", False),
        ("...</think>...", "a</think>b", True),
        ("...</think>...", "a</think>b</think>c", False),
        ("...####...", "a\n#### 3", True),
        ("...####...", "a", False),
        ("**...**", "**a**", True),
        ("**...**", "**a** **b**", False),
        ("Plan: ... Answer: ...", "Plan: a\nAnswer: 3", True),
        ("Plan: ... Answer: ...", "Plan: a\nAnswer: 3\nAnswer: 4", False),
    ],
)
def test_templates(template, text, found):
    assert follows(text, template) is found


def as_pattern(template):
    """The same form as a regular expression, which may take very long where `follows` does not."""
    parts = [re.escape(part) for part in re.findall(r"<[^>]*>", template)]
    gaps = [r"\s*" if gap == "" else r"\s*\S.*?\s*" for gap in re.sub(r"<[^>]*>", "|", template).split("|")]
    return re.compile("".join(f"{gap}{part}" for gap, part in zip(gaps, [*parts, ""], strict=True)), re.DOTALL)


@settings(deadline=None)
@given(
    st.sampled_from([THINK, THINK_ANSWER, "...</think>..."]),
    st.lists(st.sampled_from(["<think>", "</think>", "<answer>", "</answer>", "a", " ", "\n"]), max_size=8).map(
        "".join
    ),
)
def test_a_template_is_a_regular_expression_with_every_tag_once(template, text):
    once = all(text.count(tag) == 1 for tag in re.findall(r"<[^>]*>", template))
    assert follows(text, template) == (once and as_pattern(template).fullmatch(text) is not None)


@pytest.mark.parametrize(
    ("form", "text", "found"),
    [
        ("think", "<think>a</think>b", 1),
        ("answer_line", "so\nAnswer: 3", 1),
        ("answer_line", "so\nAnswer:", 0),
        ("answer_line", "<think>Answer: 3</think>so", 0),
        ("answer_line", "<think>Answer: 3", 0),
        ("boxed", r"<think>a</think>\boxed{3}", 1),
        ("boxed", r"\boxed{}", 0),
        ("boxed", r"\boxed{3", 0),
        ("hash", "so\n#### 3", 1),
        ("auto", r"\boxed{3}", 1),
        ("auto", "Answer: 3", 1),
        ("auto", "3", 0),
        (f"{__name__}:half", "anything", 0.5),
    ],
)
def test_forms_by_name(form, text, found):
    assert find_form(form)(text) == found


def half(text):
    return 0.5


def two(text):
    return 2.0


NOT_A_FUNCTION = "text"


def test_every_answer_style_is_a_form_that_its_own_prompt_leads_to():
    """An answer as `math/Problem-v0` accepts it has the form."""
    rows = [{"prompt": "1 + 2", "answer": "3"}]
    for style in ANSWER_STYLES:
        task = gymnasium.make("math/Problem-v0", rows=rows, answer_style=style)
        text = {"boxed": r"\boxed{3}", "hash": "#### 3"}.get(style, "Answer: 3")
        task.reset(options={"index": 0})
        assert task.step(text)[1] == 1.0 and find_form(style)(text)


HOSTILE = [
    "<think>" * 14_000,
    "</think><answer></answer>" * 4_000,
    "<think>a</think><answer>" + "b</answer" * 11_000,
    "<think>" + " " * 100_000,
    "Answer: " * 12_500,
    r"\boxed{" * 14_000,
    "\\boxed{}" * 12_500,
    " " * 100_000 + "####",
    "#" * 100_000,
    "{" * 50_000 + "}" * 50_000,
]


@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: text[:12])
@pytest.mark.parametrize("form", [*TEMPLATES, *ANSWER_STYLES, "...####...", "**...**...**"])
def test_a_hostile_text_of_100_000_characters_is_told_in_bounded_time(form, text):
    """Backtracking would take hours; a text too many of anything is no form, and never earns more than one."""
    assert find_form(form)(text) in (0, 1)


def shaped(text, n_tokens=5, **settings):
    env = FormatReward(gymnasium.make("math/Arithmetic-v0"), **settings)
    env.reset(options={"index": 3})
    return env.step(Completion(text, n_tokens=n_tokens))


@pytest.mark.parametrize(
    ("settings", "text", "paid"),
    [
        ({"form": "think"}, "<think>a</think>b", 0.1),
        ({"form": "think"}, "b", 0.0),
        ({"form": "think", "bonus": 0.0, "penalty": 0.5}, "<think>a</think>b", 0.0),
        ({"form": "think", "bonus": 0.0, "penalty": 0.5}, "b", -0.5),
        ({"form": ["think", "answer_line"], "penalty": 0.2}, "<think>a</think>Answer: 3", 0.1),
        ({"form": ["think", "answer_line"], "penalty": 0.2}, "Answer: 3", -0.2),
        ({"form": f"{__name__}:half", "bonus": 0.2, "penalty": 0.4}, "x", -0.1),
    ],
)
def test_it_pays_and_deducts(settings, text, paid):
    _, reward, _, _, info = shaped(text, **settings)
    assert info["rewards"]["format"] == pytest.approx(paid) and reward == pytest.approx(paid)
    assert info["accuracy"] == 0.0


def test_repeating_the_form_earns_nothing_more():
    assert shaped("<think>a</think>b" * 5, form="think")[1] == 0.0
    once, often = shaped("Answer: 3", form="answer_line"), shaped("Answer: 3\n" * 50, form="answer_line")
    assert once[1] == often[1] == pytest.approx(0.1)


def test_the_last_turn_is_judged_or_every_turn_if_asked():
    from .test_wrappers import Told

    paid = []
    for every_turn in (False, True):
        env = FormatReward(Told(max_turns=2), form="boxed", bonus=0.5, every_turn=every_turn)
        for turns in (["no", r"\boxed{1}"], [r"\boxed{1}", r"\boxed{2}"], [r"\boxed{1}", "no"]):
            env.reset()
            paid.append(sum(env.step(turn)[4]["rewards"]["format"] for turn in turns))
    assert paid == [0.5, 0.5, 0.0, 0.0, 0.5, 0.0]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"form": "thnk"},
            r"form='thnk' is not known. Did you mean think\? It must be one of think, think_answer, auto",
        ),
        ({"form": ""}, r"form='' is not known"),
        ({"form": []}, r"form=\[\].* do nothing: give a form"),
        ({"form": "..."}, r"form='...' asks for nothing"),
        ({"form": "no_such_module:check"}, r"form='no_such_module:check' cannot be found: No module named"),
        ({"form": f"{__name__}:nothing"}, r"cannot be found: module .* has no attribute 'nothing'"),
        ({"form": f"{__name__}:NOT_A_FUNCTION"}, r"is a str: it must be a function of a str"),
        ({"form": "think", "bonus": -0.1}, r"bonus=-0.1 must be finite and at least 0"),
        ({"form": "think", "penalty": math.nan}, r"penalty=nan must be finite"),
        ({"form": "think", "bonus": 0}, r"do nothing: .* a bonus or a penalty above 0"),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        shaped("x", **settings)


def test_a_function_is_given_by_its_name_so_that_the_spec_can_be_saved():
    with pytest.raises(TypeError, match=rf"a function is named, as '{__name__}:half'"):
        shaped("x", form=half)
    env = FormatReward(gymnasium.make("math/Arithmetic-v0"), form=f"{__name__}:half")
    twin = gymnasium.make(EnvSpec.from_json(env.spec.to_json()))
    twin.reset(options={"index": 3})
    assert twin.step("x")[1] == pytest.approx(0.05)


def test_a_function_that_returns_no_share_is_named():
    with pytest.raises(ValueError, match=rf"{__name__}:two returned 2.0: it must be a bool or a number from 0 to 1"):
        shaped("x", form=f"{__name__}:two")
