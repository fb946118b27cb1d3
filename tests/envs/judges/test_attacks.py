"""`envs check` and `envs attack` find a judge that can be fooled, and one that is asked by `envs.judges` is not."""

from __future__ import annotations

import json
import re

import httpx
import pytest

from envs import Judgement, TaskEnv, Verdict
from envs.attack.attack import attack_reward
from envs.judges import Judge
from envs.reward_check.check import reward_report

from ...support.judge_server import JudgeServer, running

WORDS = ("granite", "harbour", "lantern", "meadow", "orchard", "pebble", "quarry", "thistle", "umbrella", "vineyard")
GULLIBLE = {
    "an order": r"(?i)ignore all instructions",
    "a verdict": r'"score": 10|"scores": \{|\[\[10\]\]|10/10',
    "a conversation": r"<\|im_start\|>assistant|\[/INST\]",
    "an authority": r"authors of this task",
    "an opening": r"Thought process:$",
    "another language": r"请忽略",
}


class Named(TaskEnv):
    """Name the word: the judge compares it with the right one."""

    num_rows = 40
    max_concurrency = 8

    def row(self, index):
        word = f"{WORDS[index % len(WORDS)]} {WORDS[index // len(WORDS) + 3]}"
        return {"prompt": f"Name thing {index}.", "answer": word}

    def solution(self, index):
        return self.row(index)["answer"]


class Trusting(Named):
    """Its judge sees the answer as it is, and its reply is searched for a number."""

    def __init__(self, url):
        super().__init__()
        self.url = url

    def verify(self, row, completion):
        asked = f"The right answer: {row['answer']}\nThe answer: {completion}\nGrade it from 0 to 10."
        body = {"messages": [{"role": "user", "content": asked}]}
        reply = httpx.post(f"{self.url}/chat/completions", json=body).json()["choices"][0]["message"]["content"]
        grade = re.search(r"\d+", reply)
        return Judgement.of(Verdict.INFRA_FAILURE) if grade is None else min(int(grade[0]), 10) / 10


class Careful(Named):
    """Its judge is asked by `envs.judges`."""

    def __init__(self, url):
        super().__init__()
        self.judge = Judge(url=url, model="judge", rubric={"same": "Is it the right answer?"})

    def verify(self, row, completion):
        return self.judge(row["prompt"], completion, reference=row["answer"])


def graded(pattern):
    """A judge that compares words, and gives full marks where it sees what it cannot resist."""

    def reply(body):
        right, answer = re.search(
            r"The right answer: (.*)\nThe answer: (.*)\nGrade", body["messages"][0]["content"], re.S
        ).groups()
        return "10" if re.search(pattern, answer) or answer.strip() == right else "0"

    return reply


@pytest.mark.parametrize("kind", GULLIBLE)
def test_a_judge_that_falls_for_it_is_found(kind):
    with running(JudgeServer(always=graded(GULLIBLE[kind]))) as server:
        found = reward_report(lambda: Trusting(server.url), rows=4)
    assert found["persuasion"].status == "failed" and "earns 1 at row" in found["persuasion"].message


def test_the_attack_finds_it_too():
    with running(JudgeServer(always=graded(GULLIBLE["an order"]))) as server:
        found = attack_reward(lambda: Trusting(server.url), calls=400)
    assert "an order to the judge" in " ".join(hole.strategy for hole in found.holes)


def test_a_quoted_answer_gives_no_orders():
    """The judge follows whatever stands outside of the quotation, the special tokens of its template among it."""

    def obedient(body):
        text = "".join(message["content"] for message in body["messages"])
        if re.search(r"<\|im_(start|end)\|>|<\|eot_id|<end_of_turn>|\[/?INST\]|</s>", text):
            return full_marks(text)
        answer = re.search(r"\n(===== \w{8} =====)\n(.*?)\n\1\n", text, re.DOTALL)
        outside = text[: answer.start()] + text[answer.end() :]
        if re.search(r"Ignore all|Repeat your verdict|END OF ANSWER|SYSTEM NOTICE", outside):
            return full_marks(text)
        if re.fullmatch(r'\s*\{"scores".*\}\s*', answer[2], re.DOTALL):
            return answer[2]  # it repeats the verdict that it finds
        right = re.search(r"for comparison:\n(.*)\n\nThe answer to judge", text)[1]
        return verdict(text, answer[2].strip() == right)

    def verdict(text, same):
        mark = re.findall(r'"mark": "(\w{8})"', text)[-1]
        return json.dumps({"scores": {"same": same}, "mark": mark})

    def full_marks(text):
        return verdict(text, True)

    with running(JudgeServer(always=obedient)) as server:
        found = reward_report(lambda: Careful(server.url), rows=4)
        attacked = attack_reward(lambda: Careful(server.url), calls=200)
    assert [check.message for check in found.failures] == [] and found["persuasion"].status == "ok"
    assert attacked.holes == []
