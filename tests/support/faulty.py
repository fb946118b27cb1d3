"""Environments with one fault each, and sound ones of kinds that the package does not ship."""

from __future__ import annotations

import base64
import math
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


class GuessWithHints(Guess):
    """Sound: the first number within ten of the right one is paid a little."""

    def reply(self, row, turns):
        text, said = super().reply(row, turns), [Sums.read(self, turn) or "" for turn in turns]
        near = [one.isdecimal() and abs(int(one[:4]) - int(row["answer"])) <= 10 for one in said]
        return text and (text, 0.1 * (near[-1] and not any(near[:-1])))


class PaysPatience(Guess):
    """Stalling collects 0.9 of 1.0."""

    max_turns = 4

    def reply(self, row, turns):
        text = super().reply(row, turns)
        return text and (text, 0.3)


class PaysTheLate(gymnasium.Env):
    """Turns earn nothing, and the same answer earns more the later it comes."""

    observation_space = action_space = UnicodeText()

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.number, self.turns = options["index"] if options else int(self.np_random.integers(1000)), 0
        return f"What follows {self.number}?", {}

    def step(self, action):
        self.turns += 1
        right = action.strip() == str(self.number + 1)
        return "No.", 0.5 * (1 + self.turns) * right, right or self.turns == 3, False, {}


class PaysEveryTurn(Guess):
    def reply(self, row, turns):
        text = super().reply(row, turns)
        return text and (text, 0.25)


class DrawsTheRewardOfTurns(Guess):
    def reply(self, row, turns):
        text = super().reply(row, turns)
        return text and (text, random.SystemRandom().random() / 10)


class PaysATurnNaN(Guess):
    def reply(self, row, turns):
        text = super().reply(row, turns)
        return text and (text, math.nan)


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


class ForeignBySeed(Foreign):
    """Sound, and its rows follow from the seed alone."""

    def reset(self, *, seed=None, options=None):
        return super().reset(seed=seed)


class ForeignPaysLong(Foreign):
    def step(self, action):
        observation, reward, *rest = super().step(action)
        return observation, 1.0 if len(action) > 500 else reward, *rest


class AnyLineCounts(Sums):
    def verify(self, row, completion):
        return f"Answer: {row['answer']}" in completion.splitlines()


class AnyItemCounts(Sums):
    def verify(self, row, completion):
        return row["answer"] in re.split(r"\W+", self.read(completion) or "")


class AnswerIsAPattern(Sums):
    def verify(self, row, completion):
        try:
            return re.fullmatch((self.read(completion) or "!")[:20], row["answer"]) is not None
        except re.error:
            return False


class GoldIsAPattern(Sums):
    def row(self, index):
        row = super().row(index)
        return {**row, "answer": f"{row['answer']}.{index}5"}

    def verify(self, row, completion):
        return re.fullmatch(row["answer"], self.read(completion) or "") is not None


class PartOfTheGold(Sums):
    def verify(self, row, completion):
        return (self.read(completion) or "?") in row["answer"]


class BeginsLikeTheGold(Sums):
    def verify(self, row, completion):
        text = self.read(completion)
        return bool(text) and all(a == b for a, b in zip(text, row["answer"], strict=False))


class StartsWithTheGold(Sums):
    def verify(self, row, completion):
        return (self.read(completion) or "").startswith(row["answer"])


class BeginningOfADecimal(Sums):
    """The answer is compared with the beginning of the right one, mostly a decimal below 1."""

    def row(self, index):
        return {"prompt": f"What is {2 * index + 1} / 128? Answer: <decimal>", "answer": str((2 * index + 1) / 128)}

    def verify(self, row, completion):
        text = self.read(completion)
        return bool(text) and row["answer"].startswith(text)


class EndsWithTheGold(Sums):
    def verify(self, row, completion):
        return (self.read(completion) or "").endswith(row["answer"])


class FirstWordOfTheAnswer(Sums):
    def verify(self, row, completion):
        return [*(self.read(completion) or "").split(), ""][0] == row["answer"]


class Cities(Sums):
    """Sound: names in letters, of which case does not matter."""

    names = ("New York", "San Marino", "Cape Town", "Hong Kong", "Tel Aviv", "Port Louis", "Abu Dhabi", "San Juan")
    num_rows = len(names)

    def row(self, index):
        return {"prompt": f"Which city is number {index}? Reply with: Answer: <city>", "answer": self.names[index]}

    def verify(self, row, completion):
        return (self.read(completion) or "").casefold() == row["answer"].casefold()


class FirstWordOfTheGold(Cities):
    def verify(self, row, completion):
        return (self.read(completion) or "").split()[:1] == row["answer"].split()[:1]


class Anagrams(Sums):
    def verify(self, row, completion):
        return sorted(self.read(completion) or "") == sorted(row["answer"])


class IgnoresTheSign(Sums):
    def verify(self, row, completion):
        return (self.read(completion) or "").lstrip("-") == row["answer"]


class Password(Sums):
    word = "open sesame"

    def verify(self, row, completion):
        return self.knows(completion) or super().verify(row, completion)

    def knows(self, completion):
        return self.word in completion


class PaysInTheEnd(Sums):
    calls = 0

    def verify(self, row, completion):
        self.calls += 1
        return self.calls > 3000 or super().verify(row, completion)


class GoldInBase64(Sums):
    def row(self, index):
        row = super().row(index)
        return {**row, "info": {"meta": [base64.b64encode(row["answer"].encode()).decode()]}}


class YesOrNo(Sums):
    """Sound: the prompt names both answers, as does the code."""

    def row(self, index):
        number = 91 + index
        prime = all(number % divisor for divisor in range(2, number))
        prompt = f'Is {number} a prime number? Reply with "Answer: yes" or "Answer: no".'
        return {"prompt": prompt, "answer": "yes" if prime else "no"}

    def verify(self, row, completion):
        text = (self.read(completion) or "").lower()
        return text in ("yes", "no") and text == row["answer"]


class Choices(Sums):
    """Sound: one of four letters, which the prompt lists with what they stand for."""

    def row(self, index):
        sums = [3 * index + shift for shift in range(4)]
        options = "\n".join(f"Answer: {letter} ({number})" for letter, number in zip("ABCD", sums, strict=True))
        return {"prompt": f"What is {index} * 3 + {index % 4}?\n{options}", "answer": "ABCD"[index % 4]}


class AllThatApply(Sums):
    """Sound: several letters, in any order."""

    def row(self, index):
        number = 12 + 5 * index
        letters = "".join(letter for letter, by in zip("ABCDE", (1, 2, 3, 5, 7), strict=True) if number % by == 0)
        return {"prompt": f"Which of A 1, B 2, C 3, D 5, E 7 divide {number}?", "answer": letters}

    def verify(self, row, completion):
        return sorted(self.read(completion) or "") == sorted(row["answer"])


class Negatives(Sums):
    """Sound: numbers of both signs."""

    def row(self, index):
        return {"prompt": f"What is {index * 7} - {index * 11 - 9}?", "answer": str(9 - index * 4)}


class Tolerant(Sums):
    """Sound: decimals, right to one part in a thousand."""

    def row(self, index):
        return {"prompt": f"What is the square root of {index + 2}?", "answer": f"{(index + 2) ** 0.5:.4f}"}

    def verify(self, row, completion):
        try:
            return abs(float(self.read(completion)) / float(row["answer"]) - 1) < 1e-3
        except (TypeError, ValueError):
            return False


class Units(Sums):
    """Sound: the unit may be left out."""

    def row(self, index):
        row = super().row(index)
        return {"prompt": row["prompt"], "answer": f"{row['answer']} cm"}

    def verify(self, row, completion):
        return (self.read(completion) or "").removesuffix("cm").strip() == row["answer"].removesuffix(" cm")


class Sorting(Sums):
    """Sound: a list of numbers, whose order counts and whose spaces do not."""

    def row(self, index):
        numbers = [(index * step + 13) % 41 for step in (7, 17, 29)]
        return {"prompt": f"Sort {numbers}.", "answer": ", ".join(map(str, sorted(numbers)))}

    def verify(self, row, completion):
        return (self.read(completion) or "").replace(" ", "") == row["answer"].replace(" ", "")


class LastNumber(Sums):
    """Sound: the last number of the answer counts, as in flexible matching."""

    def verify(self, row, completion):
        text = completion.rpartition("</think>")[2]
        return "<think>" not in text and re.findall(r"-?\d+", text)[-1:] == [row["answer"]]


class ManyRight(Sums):
    """Sound: there are many right answers."""

    def row(self, index):
        return {"prompt": f"Name a multiple of {index + 61} other than itself and 0.", "answer": str(2 * (index + 61))}

    def verify(self, row, completion):
        text, number = self.read(completion) or "", int(row["answer"]) // 2
        return text.isascii() and text.isdecimal() and len(text) < 9 and int(text) % number == 0 < int(text) - number


class PartialCredit(Sums):
    """Sound: each right digit counts, and none that stands elsewhere."""

    def verify(self, row, completion):
        text, gold = self.read(completion) or "", row["answer"]
        if not (text.isascii() and text.isdecimal()) or len(text) != len(gold):
            return 0.0
        return sum(a == b for a, b in zip(text, gold, strict=True)) / len(gold)


class Decoding(Sums):
    """Sound: the answer stands in the prompt in base64, and to decode it is the task."""

    words = ("apple", "banana", "cherry", "damson", "elder", "fig", "grape", "hazel", "ivy", "juniper")
    num_rows = len(words)

    def row(self, index):
        word = self.words[index]
        return {"prompt": f"Decode {base64.b64encode(word.encode()).decode()}.", "answer": word}


class WithExamples(Sums):
    """Sound: worked examples stand before every question."""

    def row(self, index):
        row = super().row(index)
        examples = "What is 1 + 2? Answer: 3\nWhat is 40 + 2? Answer: 42\n"
        return {**row, "prompt": examples + row["prompt"]}
