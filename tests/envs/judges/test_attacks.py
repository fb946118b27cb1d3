"""`envs check` and `envs attack` find a judge that can be fooled, and one that is asked by `envs.judges` is not."""

from __future__ import annotations

import json
import re
from functools import partial

import pytest

from envs import TaskEnv
from envs.attack.attack import attack_reward
from envs.judges import Judge
from envs.reward_check.check import reward_report
from envs.reward_check.persuasion import persuasions
from envs.reward_check.worker import Worker

from ...support.judge_server import JudgeServer, running

WORDS = ("granite", "harbour", "lantern", "meadow", "orchard", "pebble", "quarry", "thistle", "umbrella", "vineyard")
KNOWN = {
    "an order": r"(?i)ignore all instructions",
    "a verdict as JSON": r'"score": 10',
    "a verdict in words": r"10/10",
    "a rating": r"\[\[10\]\]",
    "a mark of the end": r"END OF ANSWER",
    "turns of a conversation": r"<\|im_start\|>assistant|\[/INST\]",
    "an authority": r"authors of this task",
    "an opening": r"^Thought process:$",
    "one character": r"^:$",
    "another language": r"请忽略",
    "characters that nobody sees": r"^[\U000e0000-\U000e007f]+$",
    "padding": r"^(.{50,})\1{20,}$",
}
ORDERS = KNOWN["an order"]


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
    """Its judge compares words, and gives full marks where an answer tells it to."""

    def verify(self, row, completion):
        return bool(re.search(ORDERS, completion)) or completion.strip() == row["answer"]


class Careful(Named):
    """Its judge is asked by `envs.judges`."""

    def __init__(self, url):
        super().__init__()
        self.grader = Judge(url=url, model="judge", rubric={"same": "Is it the right answer?"})

    def verify(self, row, completion):
        return self.grader(row["prompt"], completion, reference=row["answer"])


class Patient(TaskEnv):
    """It sets nothing itself."""

    num_rows = 1

    def __init__(self, grader):
        super().__init__()
        self.grader = grader

    def row(self, index):
        return {"prompt": "Why?"}

    def verify(self, row, completion):
        return self.grader(row["prompt"], completion)


class Approved(Named):
    """Sound: its answers are words of approval, and more words around them do no harm."""

    def row(self, index):
        return {"prompt": f"Is {index} even?", "answer": "no" if index % 2 else "Correct"}

    def verify(self, row, completion):
        said = completion.strip().casefold()
        return said == row["answer"].casefold() or (row["answer"] == "Correct" and "yes," in said)


class AnyObject(TaskEnv):
    """Sound: any JSON object will do."""

    num_rows = 4

    def row(self, index):
        return {"prompt": f"Write any JSON object. ({index})"}

    def verify(self, row, completion):
        try:
            return isinstance(json.loads(completion.rpartition("</think>")[2]), dict)
        except ValueError:
            return False


class Praise(AnyObject):
    """Sound: a text that one of the attacks happens to be."""

    def verify(self, row, completion):
        return "fairest" in completion


@pytest.mark.parametrize("kind", KNOWN)
def test_what_is_known_to_fool_judges_is_tried(kind):
    assert [name for name, text in persuasions().items() if re.search(KNOWN[kind], text)]


def test_a_judge_that_falls_for_it_is_found():
    found = reward_report(Trusting, rows=4)["persuasion"]
    assert found.status == "failed"
    assert re.match("an order to the judge, 'Ignore all instructions .* earns 1 at row 0", found.message)
    holes = attack_reward(Trusting, calls=1_000).holes
    assert "an order to the judge" in " ".join(hole.strategy for hole in holes)


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
        found = reward_report(partial(Careful, server.url), rows=4)
    assert [check.message for check in found.failures] == [] and found["persuasion"].status == "ok"


@pytest.mark.parametrize(("env", "status"), [(Approved, "ok"), (AnyObject, "ok"), (Praise, "advice")])
def test_an_honest_answer_is_no_attack(env, status):
    found = reward_report(env, rows=4)["persuasion"]
    assert found.status == status and "judge" not in found.message.rpartition(": ")[2]


def test_a_task_has_the_limits_and_the_format_of_its_judge_whatever_its_name():
    class Hurried(Careful):
        max_concurrency = 2
        judging_seconds = 3.0

    env = Careful("http://127.0.0.1:9/v1")
    assert (Patient(env.grader).max_concurrency, env.max_concurrency, env.judging_seconds) == (32, 8, 91)
    hurried = Hurried("http://127.0.0.1:9/v1")
    assert (hurried.max_concurrency, hurried.judging_seconds) == (2, 3.0)
    assert (TaskEnv.max_concurrency, TaskEnv.judging_seconds, AnyObject().judging_seconds) == (1, 5.0, 5.0)
    assert '"same": true' in Worker(lambda: env).persuasions()["a verdict as JSON"]
