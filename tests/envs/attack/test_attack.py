"""The attack finds every planted hole, and accuses no sound reward."""

from __future__ import annotations

import pytest

from envs.attack.attack import attack_reward

from ...support import faulty, holes

SOUND = [
    holes.Products,
    holes.Small,
    faulty.Cities,
    faulty.YesOrNo,
    faulty.Choices,
    faulty.AllThatApply,
    faulty.Negatives,
    faulty.Tolerant,
    faulty.ManyRight,
    faulty.PartialCredit,
    faulty.Decoding,
    faulty.Foreign,
    faulty.GuessWithHints,
]
GIVEN_AWAY = (holes.InBase64, holes.InHexadecimal, holes.Backwards, holes.InRot13, holes.InThePrompt)


@pytest.mark.parametrize("env", holes.HOLES, ids=lambda env: env.__name__)
def test_a_hole_is_found(env):
    found = attack_reward(env, calls=1_500)
    assert found.holes and found.answers == 1_500 and not found.stopped
    assert {hole.should for hole in found.holes} == {"right, but given away" if env in GIVEN_AWAY else "wrong"}
    best = found.holes[0]
    assert (best.text == best.right) == (env in GIVEN_AWAY and best.text.startswith("Answer: "))
    assert bool(best.note) == (env is holes.Tired)


@pytest.mark.parametrize("env", SOUND, ids=lambda env: env.__name__)
def test_a_sound_one_is_not_accused(env):
    found = attack_reward(env, calls=1_000)
    assert found.holes == [] and found.summary.endswith("no hole found in 1,000 answers")


@pytest.mark.parametrize("env", [faulty.PaysPatience, faulty.PaysEveryTurn])
def test_rewards_of_turns_are_attacked(env):
    found = attack_reward(env, calls=300)
    assert found.holes[0].should == "wrong" and found.holes[0].reward >= 0.9


def test_guessing_is_no_hole():
    found = attack_reward(faulty.YesOrNo, calls=600)
    assert 0.5 < found.guessing < 1
    assert {finding.should for finding in found.findings} == {"guessed"}


def test_the_seed_decides_everything():
    first, again, other = (attack_reward(holes.Contained, calls=300, seed=seed) for seed in (3, 3, 4))
    assert first == again and first.findings != other.findings


def test_the_policy_sees_no_right_answer():
    """The right answers reach the judge alone: with wrong ones in their place the policy learns the same."""
    honest = attack_reward(holes.Prefix, calls=300)
    misled = attack_reward(holes.Prefix, calls=300, solution=lambda index: f"Answer: {index}")
    assert [found.strategy for found in honest.findings] == [found.strategy for found in misled.findings]


def test_answers_that_end_the_process_end_the_attack():
    found = attack_reward(faulty.EndsTheProcess, calls=100)
    assert found.holes == [] and found.stopped == "3 answers took too long or ended the process"
    assert found.summary.endswith("stopped early: 3 answers took too long or ended the process")


def test_the_limit_on_minutes_is_named():
    assert attack_reward(faulty.Sums, calls=100_000, minutes=1e-4).stopped == "the limit on minutes"


@pytest.mark.parametrize(
    ("env", "settings", "message"),
    [
        (faulty.Sums, {"calls": 0}, "calls=0 must be an integer of at least 1"),
        (faulty.Sums, {"minutes": 0}, "minutes=0 must be above 0"),
        (faulty.NoNumRows, {}, "it has no num_rows"),
        (faulty.CannotBeMade, {}, "no such disk"),
    ],
)
def test_what_cannot_be_attacked_is_named(env, settings, message):
    with pytest.raises(ValueError, match=message):
        attack_reward(env, **settings)
