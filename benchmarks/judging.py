"""Judging beside generation: what a round costs, and how busy a game of ten turns keeps the generator.

    python benchmarks/judging.py            # eleven minutes on one core
    python benchmarks/judging.py --quick

A round: 60 completions of models/rambling-0.8m by the decoding loop of this project, each step filled up to 25 ms, as a
large model takes them on a GPU. Their lengths are planned: lognormal with sigma 0.8, cut at eight times their median as
in `scaling.py`; in a second case all equal. The judge sleeps 0.5 s for each, three at a time: 10 s, as 400 steps take.

The game: 1,000 episodes of ten turns at once, 5 ms of sleep a turn, 64 at a time. Here the engine is a model of one: a
step takes 50 ms for all rows that are left, 20,000 tokens a second at most, and a turn has 8 to 64 tokens. It is busy
for the seconds that it takes alone.

"afterwards" judges once all turns are there, "beside" while others are still generated; both in one process, on one
thread, alternating.
"""

from __future__ import annotations

import itertools
import os
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from common import Claim, arguments, console, finish, show
from measured import ROOT, quieten
from transformers import AutoModelForCausalLM, AutoTokenizer

from dapo_trl.generation.transformers import sample_turns, stop_ids
from dapo_trl.rollout.chat_format import ChatFormat
from dapo_trl.rollout.episode import Episode
from dapo_trl.rollout.episode_runner import EnvPool, run_episodes
from envs import TaskEnv

ROWS, STEP, MEDIAN, SIGMA, CUT, JUDGING, JUDGES = 60, 0.025, 50, 0.8, 400, 0.5, 3
EPISODES, TURNS, GAME_STEP, SHORTEST, LONGEST, REPLYING, REPLIERS = 1000, 10, 0.05, 8, 64, 0.005, 64


class Waits(TaskEnv):
    """Every turn takes some seconds to judge, in which nothing is computed."""

    num_rows = None

    def __init__(self, seconds: float, at_once: int, turns: int = 1):
        super().__init__()
        self.seconds, self.max_concurrency, self.max_turns = seconds, at_once, turns

    def row(self, index):
        return {"prompt": f"Compute {index} + 47 digit by digit, "}

    def reply(self, row, turns):
        time.sleep(self.seconds)
        return "go on\n"

    def verify(self, row, completion):
        time.sleep(self.seconds)
        return True


class Planned:
    """Stands in for random numbers: the likeliest token until the planned length, then the end."""

    def __init__(self, lengths: np.ndarray, end: int):
        self._lengths, self._end = torch.from_numpy(lengths), end

    def draw(self, scores: torch.Tensor, rows: torch.Tensor, step: int) -> torch.Tensor:
        scores[:, self._end] = -torch.inf
        return scores.argmax(dim=-1).masked_fill(self._lengths[rows] == step + 1, self._end)


@contextmanager
def paced(model: Any) -> Iterator[None]:
    """Within the block, a step of the model takes 25 ms at least."""
    due = [time.perf_counter()]

    def fill_up(*_: Any) -> None:
        time.sleep(max(due[0] + STEP - time.perf_counter(), 0))
        due[0] = time.perf_counter()

    hook = model.register_forward_hook(fill_up)
    try:
        yield
    finally:
        hook.remove()


def rounds(
    env: TaskEnv, generate: Callable[..., Any], chat_format: ChatFormat, rows: int, limit: int
) -> dict[str, float]:
    """Seconds of a round judged afterwards and of one judged beside."""
    prompts = [chat_format.prompt_ids(env.row(index)["prompt"]) for index in range(rows)]
    found = {}
    for side in ("afterwards", "beside"):
        episodes = [Episode(env, index) for index in range(rows)]
        started = time.perf_counter()
        own = generate if side == "beside" else lambda contexts, room, on_finished: generate(contexts, room, None)
        with EnvPool(env).open() as submit:
            run_episodes(episodes, prompts, own, chat_format=chat_format, limit=limit, submit=submit)
        found[side] = time.perf_counter() - started
        assert all(episode.outcome.accuracy == 1 for episode in episodes)
    return found


def one_round(lengths: np.ndarray, model: Any, chat_format: ChatFormat, repetitions: int) -> list[dict[str, float]]:
    """Seconds of generating and judging alone and of both, as often as is asked for."""
    planned, limit = Planned(lengths, chat_format.tokenizer.eos_token_id), int(lengths.max())

    def generate(contexts, room, on_finished):
        with paced(model):
            return sample_turns(model, chat_format, contexts, planned, room=limit, on_finished=on_finished), None

    found = []
    for _ in range(repetitions):
        started = time.perf_counter()
        generate([chat_format.prompt_ids(Waits(0, 1).row(index)["prompt"]) for index in range(len(lengths))], 0, None)
        generating, judging = time.perf_counter() - started, len(lengths) / JUDGES * JUDGING
        seconds = rounds(Waits(JUDGING, JUDGES), generate, chat_format, len(lengths), limit + 1)
        found.append({"generating": generating, "judging": judging, **seconds})
    return found


def game(chat_format: ChatFormat) -> dict[str, float]:
    """Seconds of the modelled engine alone, over those of the game judged afterwards and beside."""
    rng, end = np.random.default_rng(0), chat_format.tokenizer.eos_token_id
    lengths: list[np.ndarray] = [rng.integers(SHORTEST, LONGEST + 1, EPISODES) for _ in range(TURNS)]
    turns = itertools.cycle(lengths)

    def generate(contexts, room, on_finished):
        mine = next(turns)
        for step in range(1, mine.max() + 1):
            time.sleep(GAME_STEP)
            if on_finished is not None:
                for row in np.flatnonzero(mine == step):
                    on_finished(int(row), [65] * (step - 1) + [end])
        return [[65] * (length - 1) + [end] for length in mine.tolist()], None

    started = time.perf_counter()
    for _ in range(TURNS):
        generate([], 0, None)
    alone = time.perf_counter() - started
    found = rounds(Waits(REPLYING, REPLIERS, TURNS), generate, chat_format, EPISODES, TURNS * 2 * LONGEST)
    assert next(turns) is lengths[0]  # every turn was played
    return {side: alone / seconds for side, seconds in found.items()}


def main() -> None:
    options = arguments(__doc__ or "")
    repetitions = 1 if options.quick else 3
    quieten()
    folder = ROOT / "models" / "rambling-0.8m"
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    chat_format = ChatFormat(tokenizer, stop_ids(model, tokenizer))
    chances = (np.arange(ROWS) + 0.5) / ROWS
    normal = torch.special.ndtri(torch.from_numpy(chances)).numpy()
    lognormal = np.minimum(MEDIAN * np.exp(SIGMA * normal), CUT).round().astype(int)
    lognormal[-1] = CUT
    cases = {"lognormal": np.random.default_rng(0).permutation(lognormal), "equal": np.full(ROWS, CUT)}
    rows, ratios = [], {}
    for name, lengths in cases.items():
        found = one_round(lengths, model, chat_format, repetitions)
        for side in ("afterwards", "beside"):
            each = sorted(one[side] / max(one["generating"], one["judging"]) for one in found)
            ratios[name, side] = statistics.median(each)
            rows.append((f"{name}, {side}", f"{ratios[name, side]:.2f} ({each[0]:.2f} to {each[-1]:.2f})"))
        console.print(name, {key: round(statistics.median(one[key] for one in found), 1) for key in found[0]})
    show("A round / the longer of generating and judging: median (range)", ["lengths, judged", "ratio"], rows)
    shares = [game(chat_format) for _ in range(repetitions)]
    busy = {side: statistics.median(one[side] for one in shares) for side in shares[0]}
    show(
        f"{EPISODES:,} episodes of {TURNS} turns: share of the time in which the engine generates",
        ["judged", "share"],
        [(side, f"{share:.2f}") for side, share in busy.items()],
    )
    finish(
        [
            Claim("a round / the longer of generating and judging", ratios["lognormal", "beside"], 1.1),
            Claim("a game of ten turns: share of generating", busy["beside"], 0.9, higher_is_better=True),
        ],
        options.json,
    )


if __name__ == "__main__":
    main()
