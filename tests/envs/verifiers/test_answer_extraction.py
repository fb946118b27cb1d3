r"""Finding the answer in a completion: answer lines, boxes, thinking, and hostile texts."""

import time

import pytest

from envs.verifiers.answer_extraction import after_thinking, answer_line, boxes, hash_line


@pytest.mark.parametrize(
    ("text", "rest"),
    [
        ("no thoughts", "no thoughts"),
        ("<think>a</think>b", "b"),
        ("a</think>b", "b"),  # the prompt may end with <think>
        ("<think>a</think>b<think>c</think>d", "d"),
        ("<think>a", None),
        ("<think>a</think>b<think>c", None),
    ],
)
def test_after_thinking(text, rest):
    assert after_thinking(text) == rest


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("Answer: 34", "34"),
        ("answer : 34", "34"),
        ("**Answer:** 34", "34"),
        ("**Answer: 34**", "34"),
        ("The final answer: 34\nThat is it.", "34"),
        ("Answer: 33\nAnswer: 34", "34"),
        ("Answer: 33 Answer: 34", "33 Answer: 34"),
        ("Answer:\n$$\\boxed{34}$$", "34"),
        ("Answer: 33\nAnswer:", None),
        ("Answer:\n34", "34"),
        ("**Answer:**\n\n**34**\n", "34"),
        ("Answer:\nSo \\boxed{34}", "34"),
        ("Answer: $$\n34\n$$", "34"),
        ("Answer:\n\\[\n34\n\\]", "34"),
        ("Answer: \\[\n34", None),
        ("### Final Answer: 34", "34"),
        ("__Answer:__ 34", "34"),
        ("Answers: 34", None),
        ("The answer is 34", None),
    ],
)
def test_answer_line(text, answer):
    assert answer_line(text) == answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"\boxed{34}", "34"),
        (r"\boxed {\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\fbox{34}", "34"),
        (r"\boxed{33}, so after all \boxed{34}", "34"),
        (r"\boxed{33} or \boxed{34}", "33, 34"),
        (r"\boxed{33} \text{ or } \boxed{34}", "33, 34"),
        ("\\boxed{33}\n\\boxed{34}", "33, 34"),
        (r"\boxed{33} / \boxed{34}", "33, 34"),
        (r"\boxed{33} if it is even or \boxed{34} if it is odd", "33, 34"),
        (r"\boxed{33}. Or rather, \boxed{34}", "34"),
        (r"\boxed{33} and so \boxed{34}", "34"),
        (r"\boxed{34} \boxed{34}", "34"),
        (r"\\boxed{34}", "34"),
        (r"$\boxed{33}$ and $\boxed{34}$", "33, 34"),
        (r"\boxed{\boxed{34}}", r"\boxed{34}"),
        (r"\boxed{33} and then \boxed{34", "33"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"\boxed{", None),
        ("34", None),
    ],
)
def test_boxes(text, answer):
    assert boxes(text) == answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [("#### 34", "34"), ("a\n#### 33\n #### 34 ", "34"), ("a #### 34", None), ("####", None)],
)
def test_hash_line(text, answer):
    assert hash_line(text) == answer


@pytest.mark.parametrize(
    "part",
    [
        "Answer: ",
        "Answer:\n",
        "\\boxed{",
        "\\boxed{1} or ",
        "\\boxed{1}",
        "\\",
        "{",
        "}",
        "<think>",
        "#### 1\n",
        " ",
        "or ",
    ],
)
def test_long_texts_take_linear_time(part):
    def once(text):
        start = time.process_time()
        for extract in (after_thinking, answer_line, boxes, hash_line):
            extract(text)
        return time.process_time() - start

    def seconds(length):
        return min(once(part * (length // len(part))) for _ in range(3))  # without a garbage collection in it

    assert seconds(200_000) < 40 * max(seconds(20_000), 0.005)  # quadratic would be 100 times
