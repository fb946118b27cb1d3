"""Environments with one fault each, and sound ones of kinds that the package does not ship."""

from __future__ import annotations

import os
import random
import re
import signal
import time

import gymnasium
import numpy as np

from envs import TaskEnv, UnicodeText, Verdict


class Sums(TaskEnv):
    """Sound: says the sum of two numbers, in the form `Answer: 12`."""

    num_rows = 40

    def row(self, index):
        a, b = 3 * index + 17, 7 * index + 58
        return {"prompt": f"What is {a} + {b}? Reply with: Answer: <number>", "answer": str(a + b)}

    def verify(self, row, completion):
        return self.read(completion) == row["answer"]

    def read(self, completion):
        text = completion.rpartition("</think>")[2]
        return None if "<think>" in text else text.rpartition("Answer: ")[2].strip()


class Returns(Sums):
    """Its `step` returns what `change(*result)` makes of it."""

    def __init__(self, change):
        super().__init__()
        self.change = change

    def step(self, action):
        return self.change(*super().step(action))


def keep(*result):
    return result


class ResetReturns(Sums):
    """Its `reset` returns what `change(prompt, info)` makes of it."""

    def __init__(self, change):
        super().__init__()
        self.change = change

    def reset(self, **arguments):
        return self.change(*super().reset(**arguments))


class StepRaises(Sums):
    def verify(self, row, completion):
        return {}["missing"]


class RaisesOnJunk(Sums):
    def verify(self, row, completion):
        return int(completion.removeprefix("Answer: ")) == int(row["answer"])


class EndsTheProcess(Sums):
    def verify(self, row, completion):
        os._exit(3)


class NoNumRows(TaskEnv):
    row, verify = Sums.row, Sums.verify


class TooManyRows(Sums):
    num_rows = 41

    def row(self, index):
        return {"prompt": "", **super().row(index)} if index < 40 else {}["missing"]


class CannotBeMade(Sums):
    def __init__(self):
        raise OSError("no such disk")


class AnotherPromptEachTime(Sums):
    asked = 0

    def row(self, index):
        self.asked += 1
        return super().row(self.asked)


class AnotherPromptInEachProcess(Sums):
    def row(self, index):
        return super().row(hash(str(index)) % 1000)


class IgnoresTheSeed(Sums):
    def reset(self, *, seed=None, options=None):
        return super().reset(seed=None, options=options)


class ReadsAnotherForm(Sums):
    def verify(self, row, completion):
        return completion == f"<answer>{row['answer']}</answer>"


class WrongSolution(Sums):
    def solution(self, index):
        return "Answer: 0" if index == 39 else super().solution(index)


class SolutionRaises(Sums):
    def solution(self, index):
        return {}["missing"]


class NeverKnows(Sums):
    def verify(self, row, completion):
        return Verdict.INFRA_FAILURE


class PaysAnyText(Sums):
    """The rule of reasoning-gym's `game_of_life_halting`: the truth of the text, not the text, is compared."""

    def row(self, index):
        return {"prompt": f"Does board {index} come to rest? <answer>True or False</answer>", "rests": index % 3 == 0}

    def solution(self, index):
        return f"<answer>{self.row(index)['rests']}</answer>"

    def verify(self, row, completion):
        _, opened, answer = completion.rpartition("</answer>")[0].rpartition("<answer>")
        return bool(opened) and bool(answer.strip()) == bool(str(row["rests"]))


class PaysEmptyText(Sums):
    def verify(self, row, completion):
        return (self.read(completion) or "") in row["answer"]


class PaysNotANumber(Sums):
    def verify(self, row, completion):
        try:
            return not abs(float(self.read(completion) or "x") - float(row["answer"])) > 1e-6
        except ValueError:
            return False


class PaysEverything(gymnasium.Env):
    """A plain environment whose reward is a constant."""

    observation_space = action_space = UnicodeText()

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return f"question {(options or {}).get('index', seed)}", {}

    def step(self, action):
        return "", 1.0, True, False, {}


class PaysMentions(Sums):
    def verify(self, row, completion):
        return row["answer"] in re.findall(r"\d+", completion)


class PaysAnyNumber(Sums):
    def verify(self, row, completion):
        return re.fullmatch(r"Answer: \d+", completion) is not None


class AnswerAtTheEnd(Sums):
    def row(self, index):
        row = super().row(index)
        return {**row, "prompt": f"{row['prompt']} (Sure? It is {row['answer']}.)"}


class AnswerInTheMiddle(Sums):
    def row(self, index):
        row = super().row(index)
        return {**row, "prompt": f"[{index % 7} {row['answer']}] {row['prompt']} One of {index} questions."}


class SolutionInThePrompt(Sums):
    def row(self, index):
        row = super().row(index)
        return {**row, "prompt": f"{index % 3 * 'Well. '}Answer: {row['answer']}! {row['prompt']}"}


class AnswerInTheInfo(Sums):
    def row(self, index):
        row = super().row(index)
        return {**row, "info": {"meta": {"gold": row["answer"]}}}


class Executes(Sums):
    def verify(self, row, completion):
        text = self.read(completion) or ""
        try:
            return str(eval(text) if "import" in text else text) == row["answer"]
        except Exception:
            return False


class DrawsTheReward(Sums):
    def verify(self, row, completion):
        return super().verify(row, completion) and self.np_random.random() < 0.5


class DependsOnTheProcess(Sums):
    def verify(self, row, completion):
        return super().verify(row, completion) and hash(row["answer"]) % 2 == 0


class DependsOnTheThread(Sums):
    def verify(self, row, completion):
        signal.signal(signal.SIGALRM, signal.SIG_DFL)  # which Python allows in the main thread alone
        return super().verify(row, completion)


class DependsOnTheInstance(Sums):
    made = 0

    def __init__(self):
        super().__init__()
        type(self).made += 1
        self.first = self.made == 1

    def verify(self, row, completion):
        return super().verify(row, completion) and self.first


class SharedInfo(Sums):
    def __init__(self):
        super().__init__()
        self.info = {}

    def step(self, action):
        observation, reward, terminated, truncated, info = super().step(action)
        self.info.update(info)
        return observation, reward, terminated, truncated, self.info


class KeptInfo(Sums):
    def __init__(self):
        super().__init__()
        self.infos = {}

    def reset(self, **arguments):
        prompt, info = super().reset(**arguments)
        return prompt, self.infos.setdefault(info["index"], info)


class UsesRandom(Sums):
    def verify(self, row, completion):
        random.random()
        return super().verify(row, completion)


class SeedsNumPy(Sums):
    def row(self, index):
        np.random.seed(index)
        return super().row(index)


class Hangs(Sums):
    def verify(self, row, completion):
        while len(completion) > 1000:
            pass
        return super().verify(row, completion)


class Backtracks(Sums):
    def verify(self, row, completion):
        return re.fullmatch(r"((Answer:|\s|\w|\d+)*)+!", completion) is not None or super().verify(row, completion)


class Sleeps(Sums):
    def verify(self, row, completion):
        time.sleep(0.3)
        return super().verify(row, completion)


class NotReadAfterThinking(Sums):
    def verify(self, row, completion):
        return completion == f"Answer: {row['answer']}"


class PaysUnfinishedThinking(Sums):
    def read(self, completion):
        return completion.rpartition("Answer: ")[2].strip()


class Guess(TaskEnv):
    """Sound, of many turns: find a number; every wrong guess but the fifth is answered."""

    num_rows = 30
    max_turns = 5

    def row(self, index):
        number = (index * 37 + 11) % 101
        return {"prompt": "Find my number from 0 to 100. Say: Answer: <number>", "answer": str(number)}

    def reply(self, row, turns):
        return None if self.verify(row, turns[-1]) else "No. Another one?"

    def verify(self, row, completion):
        return Sums.read(self, completion) == row["answer"]


class GuessWithoutEnd(Guess):
    max_turns = 10**6


class GuessSharedByCopies(Guess):
    def __deepcopy__(self, memo):
        return self


class Foreign(gymnasium.Env):
    """Sound, and it knows nothing of this package."""

    observation_space = action_space = UnicodeText()

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.number = options["index"] if options else int(self.np_random.integers(1000))
        return f"What follows {self.number}?", {}

    def step(self, action):
        return "", 1.0 if action.strip() == str(self.number + 1) else -0.5, True, False, {}


class ForeignPaysLong(Foreign):
    def step(self, action):
        observation, reward, *rest = super().step(action)
        return observation, 1.0 if len(action) > 500 else reward, *rest
