"""The published tables are what the raw data say, worked out once more in another way."""

from __future__ import annotations

import json
import re
import sys
from subprocess import run

import numpy as np
import pytest

from .conftest import ROOT

RESULTS = ROOT / "benchmarks" / "results"
PAGE = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
T_975 = {5: 2.776, 10: 2.262}
"""of Student's t, by the number of seeds"""


def raw(name: str) -> list[dict]:
    return json.loads((RESULTS / f"{name}.runs.json").read_text(encoding="utf-8"))


def table(name: str) -> tuple[list[str], dict[str, list[str]]]:
    """Headings, and cells by the first of each row."""
    text = re.search(rf"<!-- made: {name} -->\n(.*?)\n<!-- end -->", PAGE, re.DOTALL)[1]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()]
    return rows[0][1:], {row[0]: row[1:] for row in rows[2:]}


def numbers(cell: str) -> list[float]:
    return [float(found.replace(",", "")) for found in re.findall(r"-?[\d,]*\.?\d+", cell)]


def test_the_pages_are_made_from_the_raw_data():
    done = run([sys.executable, "scripts/make_results.py", "--check"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("heading", "of"),
    [
        ("accuracy, same steps", lambda one: {row["step"]: row["accuracy"] for row in one["measured"]}[320]),
        (
            "accuracy, same tokens",
            lambda one: np.interp(65_000, *zip(*((r["tokens"], r["accuracy"]) for r in one["measured"]), strict=True)),
        ),
        ("rollouts", lambda one: {row["step"]: row["completions"] for row in one["measured"]}[320]),
    ],
)
def test_the_ladder_again(heading, of):
    headings, rows = table("rungs")
    place = headings.index(heading)
    for arm, cells in rows.items():
        values = np.array([of(one) for one in raw("ladder") if one["arm"] == arm])
        half = T_975[len(values)] * values.std(ddof=1) / len(values) ** 0.5
        assert numbers(cells[place]) == pytest.approx([values.mean(), half], abs=1 if values.mean() > 100 else 6e-4)


def test_the_differences_again():
    headings, rows = table("techniques")
    found = {(one["arm"], one["seed"]): one["measured"] for one in raw("ladder")}

    def gain(arm, other):
        """Mean and half-width over the seeds that both have."""
        ends = [
            {seed: {row["step"]: row["accuracy"] for row in found[a, seed]}[320] for a, seed in found if a == name}
            for name in (arm, other)
        ]
        values = np.array([ends[0][seed] - ends[1][seed] for seed in ends[0].keys() & ends[1].keys()])
        return values.mean(), T_975[len(values)] * values.std(ddof=1) / len(values) ** 0.5

    arms = ["naive GRPO", *(f"+ {technique}" for technique in rows)]
    for before, after, technique in zip(arms, arms[1:], rows, strict=False):
        without = before if technique == "dynamic-sampling" else f"all but {technique}"
        shown = {heading: numbers(cell) for heading, cell in zip(headings, rows[technique], strict=True)}
        assert shown["added, same steps"] == pytest.approx(gain(after, before), abs=6e-4)
        assert shown["in the whole, same steps"] == pytest.approx(gain(arms[-1], without), abs=6e-4)


def test_time_to_accuracy_again():
    """Where the running means first come to each goal, by numpy's interpolation of what was highest so far."""
    headings, rows = table("time to accuracy")
    found = {(one["side"], one["seed"]): one["measured"] for one in raw("time_to_accuracy")}

    def cost(side, seed, name, goal):
        accuracy, costs = (
            np.convolve([row[of] for row in found[side, seed]], np.ones(4) / 4, "valid") for of in ("accuracy", name)
        )
        place = np.argmax(accuracy >= goal)
        if accuracy[place] < goal:
            return found[side, seed][-1][name]
        return np.interp(goal, accuracy[place - 1 : place + 1], costs[place - 1 : place + 1])

    seeds = sorted({seed for _, seed in found})
    assert len(seeds) >= 5
    for goal, cells in rows.items():
        for heading, name in (("seconds", "seconds"), ("tokens", "tokens"), ("optimizer steps", "step")):
            ratios = [cost("ours", s, name, float(goal)) / cost("TRL", s, name, float(goal)) for s in seeds]
            shown = numbers(cells[headings.index(f"ours / TRL, {heading}")])
            assert shown == pytest.approx([np.median(ratios), min(ratios), max(ratios)], abs=6e-3)


def test_the_shares_of_time_add_up():
    headings, rows = table("sections")
    for place in range(len(headings)):
        shares = [float(re.search(r"\((\d+)%\)", cells[place])[1]) for cells in rows.values()]
        assert sum(shares) == pytest.approx(100, abs=4)
