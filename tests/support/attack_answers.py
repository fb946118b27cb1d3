"""Answers of every kind that the reward checker and the attack try, for one row of an environment."""

from __future__ import annotations

from collections.abc import Iterator

import gymnasium

from envs.reward_check.probe_answers import hedges, near_misses, program, read_form, strategies, worthless


def attack_answers(env: gymnasium.Env, index: int) -> Iterator[str]:
    """The right answer to a row, worthless ones, hedges, near misses, programs, and answers copied from the prompt."""
    prompt, _ = env.reset(options={"index": index})
    solutions = [text for i in (index, index + 1) if (text := env.unwrapped.solution(i)) is not None]
    form, golds = read_form(solutions)
    gold, other = (golds[0], golds[-1]) if golds else ("", "")
    yield from solutions
    yield from worthless(index).values()
    yield from (text for _, text in hedges(gold, [other], form))
    yield from (form.wrap(text) for _, text in near_misses(gold, other=other, ordered=True))
    yield from (form.wrap(text) for text in program("/nowhere/at/all").values())
    yield from (form.wrap(text) for strategy in strategies({}, {}).values() if (text := strategy(prompt)) is not None)
