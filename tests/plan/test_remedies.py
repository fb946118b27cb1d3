"""Which changes are worth naming, from plans whose peaks are given."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from dapo_trl.errors import ConfigError
from dapo_trl.plan.remedies import Change, remedies

CAPACITY, PEAK = 500, 1000
"""500 bytes are missing: what saves less than 10 of them is not worth naming."""


def plan(peak: int) -> SimpleNamespace:
    memory = SimpleNamespace(peak=peak)
    return SimpleNamespace(memory=memory, capacity=CAPACITY, fits=peak <= CAPACITY, exceeds_context=False)


def named(monkeypatch, peaks: dict[str, int]) -> list[tuple[str, int]]:
    """The changes that are named and what each saves, where each would lead to the peak given."""
    changes = [Change(name, {name: True}) for name in peaks]
    monkeypatch.setattr("dapo_trl.plan.remedies._candidates", lambda plan: changes)

    def replan(settings, placement):
        if "impossible" in settings:
            raise ConfigError("it does not go with the other settings")
        return plan(PEAK - sum(PEAK - peaks[name] for name in settings))

    return [(remedy.change.name, remedy.saves) for remedy in remedies(plan(PEAK), replan)]


@pytest.mark.parametrize(
    ("peaks", "expected"),
    [
        ({"a": 991, "b": 500}, [("b", 500)]),  # 9 bytes of 500 are no help
        ({"a": 990, "b": 500}, [("b", 500), ("a", 10)]),
        ({"a": 999, "b": 998}, [("b", 2), ("a", 1), ("all of them together", 3)]),  # unless there is nothing better
        ({"a": 1000, "b": 1010}, []),
        ({"a": 450, "b": 900, "c": 500, "d": 400}, [("d", 600), ("a", 550), ("c", 500)]),
        ({"a": 800, "b": 700}, [("b", 300), ("a", 200), ("all of them together", 500)]),
        ({"impossible": 100, "b": 600}, [("b", 400)]),
    ],
    ids=["too little", "just enough", "nothing better", "no saving", "the best three", "together", "impossible"],
)
def test_what_is_named(monkeypatch, peaks, expected):
    assert named(monkeypatch, peaks) == expected
