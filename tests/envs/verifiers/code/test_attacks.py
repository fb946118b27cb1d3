"""Programs that want to be judged right without being right."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import gymnasium
import pytest

import envs  # noqa: F401  # registers the ids

from ....support.code_attacks import ATTACKS

SHARED = Path(__file__).resolve().parents[5] / "shared" / "data" / "attacks.json"
LIMITS = {"cpu_seconds": 1.0, "wall_seconds": 10.0}

PAIRS = [([1, 2], 3), ([5, 7], 12), ([0.1, 0.2], 0.30000000000000004), ([3, 3], 6)]
TESTS = {
    "call": {
        "kind": "call",
        "entry_point": "add",
        "inputs": [given for given, _ in PAIRS],
        "outputs": [right for _, right in PAIRS],
    },
    "single calls": {
        "kind": "assert",
        "setup": "",
        "asserts": [f"assert add(*{given}) == {right}".replace("*[", "").replace("])", ")") for given, right in PAIRS],
    },
    "harness": {
        "kind": "assert",
        "setup": "import math, random\n"
        "def check(candidate):\n"
        "    assert candidate(1, 2) == 3 and candidate(5, 7) == 12\n"
        "    assert abs(candidate(0.1, 0.2) - 0.3) < 1e-6\n"
        "    assert math.isclose(candidate(0.1, 0.2), 0.3)\n"
        "    assert sorted([candidate(3, 3), 5]) == [5, 6]\n"
        "    for _ in range(5):\n"
        "        x, y = random.randint(1, 100), random.randint(1, 100)\n"
        "        assert candidate(x, y) == x + y",
        "asserts": ["check(add)"],
        "entry_point": "add",
    },
}


def judged(program, tests, **settings):
    rows = [{"prompt": "Add two numbers.", "tests": tests}]
    env = gymnasium.make("code/Program-v0", rows=rows, limits=LIMITS, **settings)
    env.reset(options={"index": 0})
    _, reward, _, _, info = env.step(f"Here it is.\n\n```python\n{program}\n```\n")
    assert info["verdict"] != "infra_failure", info["cause"]
    assert (reward == 1.0) == (info["verdict"] == "correct")
    return info


@pytest.mark.parametrize("kind", TESTS)
@pytest.mark.parametrize("name", ATTACKS)
def test_own_attacks(name, kind):
    program, is_right = ATTACKS[name]
    info = judged(program, TESTS[kind])
    if is_right is not None:
        assert (info["verdict"] == "correct") == is_right, info


@pytest.mark.parametrize("name", [name for name, (_, is_right) in ATTACKS.items() if is_right is False])
def test_no_attack_is_paid_in_part(name):
    """A share of the tests may be passed by chance, such as a sum of 3 by a program that always says 3."""
    info = judged(ATTACKS[name][0], TESTS["call"], reward="fraction")
    assert info["accuracy"] <= 0.25 and info["verdict"] != "correct"


@pytest.mark.skipif(not SHARED.is_file(), reason="the shared attacks are not there")
def test_shared_attacks():
    def info_of(attack):
        keys = ("kind", "entry_point", "inputs", "outputs")
        return judged(attack["program"], {key: attack[key] for key in keys if key in attack})

    attacks = json.loads(SHARED.read_text())
    with ThreadPoolExecutor(4) as pool:
        infos = list(pool.map(info_of, attacks))
    assert [
        (attack["name"], info)
        for attack, info in zip(attacks, infos, strict=True)
        if attack["correct"] is not None and (info["verdict"] == "correct") != attack["correct"]
    ] == []
