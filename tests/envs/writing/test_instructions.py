"""`text/Instructions-v0`: its instructions, its constraints, its splits and its verdicts."""

import random
from collections import Counter

import gymnasium
import pytest

import envs  # noqa: F401
from envs.base import Verdict
from envs.writing.constraints import KINDS, Constraint, constraint_of
from envs.writing.drafts import topics
from envs.writing.instructions import InstructionsEnv
from envs.writing.reading import Reading

TEXT = "Mountains were here first. Did you know? We saw 40 of them, but it was a long day!\n\nMANY people LIKE it."
LONGER = "There is a lot to say about zebras, queens and jam, but I will not do it here or anywhere else."


def everything(split="train", count=200):
    return [
        (env, index)
        for level in range(1, 6)
        for env in [InstructionsEnv(levels=level, split=split)]
        for index in range(count)
    ]


# --- constraints


@pytest.mark.parametrize(
    ("kind", "values", "wrong"),
    [
        ("words exactly", (22,), (21,)),
        ("words at least", (20,), (23,)),
        ("words at most", (25,), (21,)),
        ("words between", (20, 25), (23, 30)),
        ("sentences exactly", (4,), (3,)),
        ("sentences at least", (4,), (5,)),
        ("sentences at most", (4,), (3,)),
        ("short sentences", (11,), (10,)),
        ("long sentences", (3,), (4,)),
        ("paragraphs", (2,), (1,)),
        ("without a letter", ("z",), ("m",)),
        ("without letters", ("z", "j"), ("z", "m")),
        ("a letter at least", ("e", 9), ("e", 10)),
        ("a letter exactly", ("e", 9), ("e", 8)),
        ("short words", (9,), (8,)),
        ("a long word", (9,), (10,)),
        ("commas", (1,), (2,)),
        ("words in capitals", (2,), (3,)),
        ("first word", ("mountains",), ("Mountain",)),
        ("initials", ("M D W M",), ("M D M W",)),
        ("last word", ("IT",), ("like",)),
        ("last sentence", ("Many people like it.",), ("Like it.",)),
        ("questions", (1,), (0,)),
        ("required word", ("people",), ("peopl",)),
        ("required words", ("people", "long"), ("people", "zebra")),
        ("a word so often", ("it", 2), ("it", 1)),
        ("forbidden words", ("good", "nice"), ("good", "like")),
    ],
)
def test_constraints_with_values(kind, values, wrong):
    assert Constraint(kind, values).holds(Reading(TEXT))
    assert not Constraint(kind, wrong).holds(Reading(TEXT))
    assert "{" not in Constraint(kind, values).ask


@pytest.mark.parametrize(
    ("kind", "text", "other"),
    [
        ("sentence", LONGER, TEXT),
        ("plain signs", "This is fine. Isn't it?", "This is fine, too."),
        ("no commas", "It is.", "It is, too."),
        ("a number", TEXT, LONGER),
        ("lower case", "it is. 3 of them!", "It is."),
        ("capitals", "IT IS. 3 OF THEM!", "IT iS."),
        ("question at the end", 'Why? "Is it?"', "Is it? Yes."),
        ("an exclamation", TEXT, LONGER),
        ("no questions", LONGER, TEXT),
    ],
)
def test_constraints_without_values(kind, text, other):
    assert Constraint(kind, ()).holds(Reading(text))
    assert not Constraint(kind, ()).holds(Reading(other))


@pytest.mark.parametrize("kind", KINDS)
def test_a_constraint_read_off_a_text_holds_for_it(kind):
    generator = random.Random(kind)
    texts = [
        TEXT,
        LONGER,
        LONGER.upper(),
        LONGER.lower(),
        "Is it? Is it so? It is, it is, it is.",
        "Why not? Is that so?",
    ]
    read = [(constraint_of(kind, Reading(text), generator.choice), text) for text in 5 * texts]
    assert all(constraint.holds(Reading(text)) for constraint, text in read if constraint)
    assert any(constraint for constraint, _ in read)


# --- instructions


@pytest.mark.parametrize("split", ["train", "test"])
def test_every_row_has_a_solution_that_passes(split):
    """No combination contradicts itself."""
    kinds: Counter[str] = Counter()
    for env, index in everything(split):
        row = env.row(index)
        problem = row["instruction"]
        judgement = env.verify(row, problem.answer)
        asked = len(problem.constraints) + bool(problem.layout.ask)
        assert (judgement.verdict, problem.level, problem.split) == (Verdict.CORRECT, asked, split), problem.prompt
        assert judgement.details == {"constraints_met": asked, "constraints": asked}
        groups = [KINDS[one.kind].group for one in problem.constraints]
        assert len(set(groups)) == len(groups) and not set(groups) & set(problem.layout.decides)
        kinds.update([*(one.kind for one in problem.constraints), type(problem.layout).__name__])
    assert set(KINDS) <= set(kinds) and min(kinds.values()) >= 3


def test_there_are_many_instructions_and_the_splits_share_no_topic():
    assert len({InstructionsEnv(levels=2).problem(index).prompt for index in range(500)}) > 480
    train, test = ({topic.word for topic in topics() if topic.split == split} for split in ("train", "test"))
    assert len(train) > 30 and len(test) >= 10 and train.isdisjoint(test)
    assert {env.problem(index).topic.word for env, index in everything("test", 60)} == test


def test_instructions_never_change():
    """Pinned: a change here means another version of the environment."""
    env = InstructionsEnv()
    assert [env.row(index)["prompt"].partition("words. ")[2] for index in range(3)] == PINNED
    assert env.problem(2**31 + 5) == InstructionsEnv(levels=[1, 2]).problem(2**31 + 5)


PINNED = [
    'Use the word "apples".\n- The last word must be "tell".\n- Begin with the word "These".',
    'Use the word "summer".\n- Also use the word "about".\n- Every sentence must have at least 4 words.',
    'Use the word "sea". Use capital letters only.',
]


# --- what is not paid


@pytest.mark.parametrize("reward", ["all", "fraction"])
def test_nothing_is_paid_for_what_only_fits(reward):
    """Empty texts, a word over and over, the instruction, gibberish of the right letters, another row's solution."""
    for env, index in everything(count=25):
        env = InstructionsEnv(levels=env.levels, reward=reward)
        row, problem = env.row(index), env.problem(index)
        word = problem.topic.word
        gibberish = f"{word.title()} bako meri tulo sabe nokil pero datu.".replace("bako", problem.answer[:1] or "a")
        texts = ["", word, f"{word} " * 12, f"{word.title()}. " * 3, row["prompt"], gibberish]
        texts += [f"The {word} {word} {word} is.", problem.answer * 8, f"<think>{problem.answer}"]
        paid = [text for text in texts if env.verify(row, text).accuracy > 0]
        assert not paid, (row["prompt"], paid)


def test_another_row_pays_nothing():
    env = InstructionsEnv(levels=[1, 2, 3])
    for index in range(100):
        other = next(n for n in range(index + 1, index + 99) if env.problem(n).topic != env.problem(index).topic)
        assert (
            env.problem(index).topic.word in env.solution(other)
            or env.verify(env.row(index), env.solution(other)).accuracy == 0
        )


def test_a_text_that_fails_one_constraint_earns_a_fraction_if_asked():
    for env, index in everything(count=20):
        problem, row = env.problem(index), env.row(index)
        if not any(one.kind == "no questions" for one in problem.constraints) or problem.layout.ask:
            continue
        text = problem.answer + (" WHAT DO YOU SAY?" if problem.answer.isupper() else " What do you say?")
        judgement = env.verify(row, text)
        part = InstructionsEnv(levels=env.levels, reward="fraction").verify(row, text)
        assert judgement.accuracy == 0 and "not met: Ask no questions." in judgement.cause
        assert part.accuracy == part.details["constraints_met"] / part.details["constraints"] < 1


def test_the_reward_is_made_of_its_parts():
    env = gymnasium.make("text/Instructions-v0", levels=3, reward="fraction", wrong_reward=-1.0)
    env.reset(options={"index": 5})
    _, reward, _, _, info = env.step(f"<think>Let me see.</think>\n\n{env.unwrapped.solution(5)}<|im_end|>")
    assert (reward, info["accuracy"], sum(info["rewards"].values())) == (1.0, 1.0, 1.0)


def test_the_word_may_be_a_possessive():
    problem = next(
        problem
        for index in range(99)
        if (problem := InstructionsEnv(levels=1).problem(index)).prompt.endswith("at most 20 words.")
    )
    assert problem.judge(f"I like {problem.topic.word}'s many sides.", partial=False).accuracy == 1.0
    assert problem.judge(f"I like {problem.topic.word}y and its many sides.", partial=False).accuracy == 0.0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"levels": 6}, r"InstructionsEnv: levels=6 must be one or more integers from 1 to 5 \(constraints\)"),
        ({"reward": "some"}, r"InstructionsEnv: reward='some' must be 'all' or 'fraction'"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        gymnasium.make("text/Instructions-v0", **arguments)
