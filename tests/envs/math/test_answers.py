"""Answer styles: prompts, chat messages, extraction, and that all three agree."""

import re

import pytest

from envs.base import Judgement
from envs.math.answers import ANSWER_STYLES, AnswerStyle, bare_question, gold_answer
from envs.verifiers.answer_extraction import answer_line
from envs.verifiers.math.judge import judge

QUESTIONS = [
    "What is 6 times 7?",
    r"Let $S = \{1, 2\}$ and {x} = {0}. What is $\frac{1}{{2}}$?",
    "What do {question} and {answer} mean?",
    "若 $x = 1$，求 $x$。\n\nA second paragraph.",
]

every_style = pytest.mark.parametrize("style", ANSWER_STYLES.values(), ids=ANSWER_STYLES)
every_question = pytest.mark.parametrize("question", QUESTIONS)


def test_the_dapo_prompt_is_the_papers_to_the_byte():
    """As in the rows of BytedTsinghua-SIA/DAPO-Math-17k."""
    assert ANSWER_STYLES["dapo"].prompt("What is $1 + 1$?") == (
        "Solve the following math problem step by step. The last line of your response should be of the form Answer: "
        "$Answer (without quotes) where $Answer is the answer to the problem.\n\nWhat is $1 + 1$?\n\nRemember to put "
        'your answer on its own line after "Answer:".'
    )


def test_trl_pays_nothing_for_dapos_own_format_and_this_package_does():
    """Why prompt and extractor are one object: each is useless with another's counterpart."""
    rewards = pytest.importorskip("trl.rewards")
    pytest.importorskip("math_verify")
    response = "There are 30 and 4 more.\n\nAnswer: 34"
    assert rewards.accuracy_reward([[{"role": "assistant", "content": response}]], ["34"]) == [0.0]
    assert ANSWER_STYLES["dapo"].judge(response, "34", judge).accuracy == 1.0


@every_style
@every_question
def test_a_question_stands_in_its_prompt_as_it_is_and_is_found_again(style, question):
    prompt = style.prompt(question)
    assert prompt.count(question) == 1
    assert style.question(prompt) == question
    assert bare_question(prompt) == question and bare_question(question) == question


@every_style
@every_question
def test_messages(style, question):
    assert style.messages(question) == [{"role": "user", "content": style.prompt(question)}]
    system, user = style.messages(question, system=True)
    assert user == {"role": "user", "content": question}
    assert system["role"] == "system" and question not in system["content"]
    instruction = [line for line in style.template.splitlines() if line and line != "{question}"]
    assert system["content"].split("\n\n") == instruction


def test_an_instruction_around_the_question_is_no_system_message():
    style = AnswerStyle("Compute {question} now.", "a line", answer_line)
    assert style.messages("1 + 1") == [{"role": "user", "content": "Compute 1 + 1 now."}]
    with pytest.raises(ValueError, match="system=True needs the question in a paragraph of its own"):
        style.messages("1 + 1", system=True)


@pytest.mark.parametrize("template", ["no question", "{question} {question}"])
def test_a_template_has_one_place_for_the_question(template):
    with pytest.raises(ValueError, match=r"must have \{question\} in it exactly once"):
        AnswerStyle(template, "a line", answer_line)


@every_style
@pytest.mark.parametrize("answer", ["42", r"\frac{1}{2}", r"2\sqrt{3}", "(1, 2)"])
def test_a_solution_is_found_by_its_own_style(style, answer):
    if ANSWER_STYLES["last_number"] is style and answer != "42":
        pytest.skip("this style asks for a number")

    def same(found: str, gold: str) -> Judgement:
        return Judgement.of(found == gold)

    assert style.judge(f"I think so.\n{style.solution(answer)}", answer, same).verdict == "correct"


@pytest.mark.parametrize("name", ["auto", "answer_line", "boxed", "hash"])
def test_the_form_that_the_prompt_shows_is_the_one_that_is_read(name):
    style = ANSWER_STYLES[name]
    form = r"\boxed{}" if name == "boxed" else re.search(r'"(.*<answer>)"', style.prompt("?"))[1]
    filled = form.replace("<answer>", "42").replace("{}", "{42}")
    assert style.judge(f"I think.\n{filled}", "42", judge).verdict == "correct"
    assert style.solution("42") == filled


@pytest.mark.parametrize(
    "prompt",
    [
        "What is 1 + 1?",
        'Remember to put your answer on its own line after "Answer:".',
        "Solve the following math problem step by step.\n\nWhat is 1 + 1?",
        'What is 1 + 1? Give it as "Answer: <number>".',
    ],
)
def test_only_a_whole_template_is_taken_off(prompt):
    assert bare_question(prompt) == prompt


@pytest.mark.parametrize(
    ("value", "gold"),
    [
        ("  72 ", "72"),
        ("a #### b\n#### 72", "72"),
        ("**Answer:** 34", "34"),
        ("17+17 = 34\nThe answer is: 34", "34"),
        ("Final answer: 34", "34"),
        ("We get 30+4.\nThe answer is 34.", "34"),
        ("The final answer is $\\frac{1}{2}$.", r"$\frac{1}{2}$"),
        ("### Answer\n\n42.", "42"),
        ("**Final Answer**\n$x^2$", "$x^2$"),
        ("So, Answer = 15.", "15"),
        ("The answer\nto it is 42", "The answer to it is 42"),
        (r"So \boxed 7.", "7"),
        (r"It is \boxed{1} at first. In the end it is \boxed{\frac{1}{2}}.", r"\frac{1}{2}"),
    ],
)
def test_gold_answer(value, gold):
    assert gold_answer(value) == gold


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("They have 30 + 4 = 34 apples.", "correct"),
        ("It is $1,034.50 - 1,000.50 = 34", "correct"),
        ("34, or perhaps 35", "wrong"),
        ("minus: -34.", "wrong"),
        ("Many.", "no_answer"),
        ("<think>34", "no_answer"),
    ],
)
def test_the_last_number_of_a_text_is_an_answer_style_and_known_to_be_weak(text, verdict):
    style = ANSWER_STYLES["last_number"]
    assert style.judge(text, "34", judge).verdict == verdict
    assert style.weakness and not any(other.weakness for other in ANSWER_STYLES.values() if other is not style)
