"""What strategies show on rows that were held out."""

import pytest

from envs.attack.report import HeldOut, by_chance, guess_level, judge
from envs.reward_check.probe_answers import Form

GOLDS = {index: str(100 + index) for index in range(40)}


def finding(texts, *, place="nowhere", copied=True, golds=GOLDS, guessing=0.025):
    """The finding on answers of which the paid ones are given, by row."""
    trials = [HeldOut(index, f"Answer: {texts.get(index, '?')}", float(index in texts)) for index in range(40)]
    return judge("it", trials, place, copied=copied, golds=golds, guessing=guessing, form=Form("Answer: "))


def test_what_is_never_paid_is_no_finding():
    assert finding({}) is None


@pytest.mark.parametrize(
    ("texts", "settings", "should", "hole"),
    [
        (dict.fromkeys(range(40), "x"), {}, "wrong", True),
        (dict.fromkeys(range(9), "x"), {}, "wrong", True),
        (dict.fromkeys(range(3), "x"), {}, "guessed", False),
        (dict.fromkeys(range(20), "x"), {"guessing": 0.5}, "guessed", False),
        (GOLDS, {"place": "prompt"}, "right, but given away", True),
        (GOLDS, {"place": "prompt", "copied": False}, "guessed", False),
        (GOLDS, {"place": "nowhere"}, "guessed", False),
        (dict(list(GOLDS.items())[:15]), {"place": "prompt"}, "guessed", False),
        (dict(list(GOLDS.items())[:15]), {"place": "info"}, "right, but given away", True),
        (dict.fromkeys(range(40), "x"), {"golds": {}}, "unknown", True),
        (dict.fromkeys(range(40), "x"), {"golds": {}, "place": "prompt"}, "unknown", False),
        (dict.fromkeys(range(20), "x"), {"golds": {}}, "unknown", False),
    ],
)
def test_verdicts(texts, settings, should, hole):
    found = finding(texts, **settings)
    assert (found.should, found.hole, found.paid, found.rows) == (should, hole, len(texts), 40)


def test_an_equal_number_and_another_form_are_right():
    assert finding({index: f"{gold}.0" for index, gold in GOLDS.items()}).should == "guessed"
    assert finding({index: f"\\boxed{{{gold}}}" for index, gold in GOLDS.items()}).should == "guessed"


def test_guessing():
    assert guess_level({0: "yes", 1: "Yes ", 2: "no", 3: "maybe"}, partial=0.1) == pytest.approx(0.6)
    assert by_chance(0.5, 4, 0.5) == pytest.approx(11 / 16) and by_chance(1.0, 3, 0.5) == pytest.approx(1 / 8)
