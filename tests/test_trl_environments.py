"""TRL's own ``tools`` and ``environment_factory`` under dynamic sampling: what is played is scripted, the rest real."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import trl
from datasets import Dataset
from transformers import AutoTokenizer

from dapo_trl import DAPOTrainer
from dapo_trl.generation.params import Turns
from dapo_trl.trl_internals import SamplingNow

from .support.recorded import GROUP, config
from .support.tiny import save_tiny_model

ALL_RIGHT, MIXED, ALL_WRONG = 0, 2, 4
"""Goals, each the number of members of the group that guess wrongly."""


class Game:
    """Guess the goal in one call of a tool; a wrong guess may be followed by another call."""

    resets = 0

    def reset(self, goal: int, **row) -> str:
        """A new game."""
        type(self).resets += 1
        self.goal, self.reward, self.calls = goal, 0.0, 0
        return f" Goal {goal}."

    def guess(self, number: int) -> str:
        """Guess a number.

        Args:
            number: the guess
        """
        self.calls += 1
        self.reward = float(number == self.goal)
        return "yes!" if self.reward else "no, no"

    def get_reward(self) -> float:
        return self.reward


class Scripted(DAPOTrainer):
    """Its own generation backend: calls the tool once, or twice in vain, then says that it is done."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.backend, self.trained, self.seen = self, [], []

    def generate(self, contexts, *, limit, group_size, numbers=None):
        texts = []
        for place, ids in enumerate(contexts):
            text = self.processing_class.decode(ids)
            goal, answers = int(re.search(r"Goal (\d+)", text)[1]), text.count("<tool_response>")
            wrong = place % GROUP < goal if not answers else "no, no" in text
            call = {"name": "guess", "arguments": {"number": goal + 1 if wrong else goal}}
            asks = not answers or (wrong and answers < 2)
            texts.append(f"<tool_call>\n{json.dumps(call)}\n</tool_call>" if asks else "Done.")
        self.seen.append(len(contexts))
        eos = self.processing_class.eos_token_id
        return Turns([[*ids, eos] for ids in self.processing_class(texts)["input_ids"]], None)

    def _compute_loss(self, model, inputs):
        decode = self.processing_class.decode
        for ids, whole, own in zip(inputs.completion_ids, inputs.completion_mask, inputs.loss_mask, strict=True):
            self.trained.append((decode(ids[own.bool()]), decode(ids[whole.bool() & ~own.bool()])))
        return super()._compute_loss(model, inputs)


def made(folder: Path, goals: list[int], **changes) -> Scripted:
    model = save_tiny_model(folder / "model", chat=True, context=4096)
    tokenizer = AutoTokenizer.from_pretrained(model)
    template = Path(trl.__file__).parent / "chat_templates" / "qwen3.jinja"
    tokenizer.chat_template = template.read_text(encoding="utf-8")
    rows = Dataset.from_dict({"prompt": [[{"role": "user", "content": "Play."}]] * len(goals), "goal": goals})
    settings = {"steps_per_generation": 2, "max_completion_length": 400, "min_valid_fraction": 1.0, "beta": 0.0}
    args = config(folder, **{**settings, "share_prompts": "off", "overlong_max_length": 170, **changes})
    return Scripted(model, None, args, rows, processing_class=tokenizer, environment_factory=Game)


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Scripted:
    Game.resets = 0
    run = made(tmp_path_factory.mktemp("game"), [MIXED, ALL_RIGHT, ALL_WRONG, MIXED, MIXED, MIXED, ALL_RIGHT, MIXED])
    run.train()
    return run


@pytest.mark.slow
class TestEnvironmentFactory:
    def test_groups_without_a_difference_are_dropped_and_replaced(self, run):
        logs = run.state.log_history[0]
        assert (logs["groups/sampled"], logs["groups/all_right"], logs["groups/all_wrong"]) == (8, 2, 1)
        assert logs["groups/kept"] == 5 and logs["groups/trained"] == 4 and logs["groups/surplus"] == 1
        assert logs["accuracy/sampled"] == pytest.approx((5 * 0.5 + 2 * 1.0) / 8)
        assert logs["tools/call_frequency"] > 1

    def test_an_environment_is_reset_for_sampling_alone(self, run):
        assert Game.resets == 8 * GROUP

    def test_the_tools_answers_are_masked_and_nothing_else(self, run):
        assert run.trained and any("no, no" in foreign for _, foreign in run.trained)
        for own, foreign in run.trained:
            assert "tool_response" not in own and own.startswith("<tool_call>") and "Done." in own
            assert "<tool_call>" not in foreign and ("yes!" in foreign or foreign.count("no, no") == 2)

    def test_ledger_and_difficulty_memory_know_them(self, run):
        [source] = run.sampling.sources
        tokens, logs = source.ledger.tokens, run.state.log_history[0]
        own = logs["completions/mean_length"] * 8 * GROUP  # tokens of the model alone
        assert source.ledger.generated == pytest.approx(own, abs=0.01)
        assert all(tokens[account] > 0 for account in ("trained", "all_right", "all_wrong", "surplus_kept"))
        chances = source.selector.difficulty.chances(range(8), [None] * 8)
        goals = run.train_dataset["goal"]
        mixed = [chance for chance, goal in zip(chances, goals, strict=True) if goal == MIXED]
        assert min(mixed) > max(chance for chance, goal in zip(chances, goals, strict=True) if goal != MIXED)

    def test_the_length_penalty_counts_the_models_tokens_alone(self, run):
        """The longest episode with the tools' answers is over the limit, and without them under it."""
        longest = max(len(own) + len(foreign) for own, foreign in run.trained)
        assert longest > 170 > max(len(own) for own, _ in run.trained)
        assert run.state.log_history[0]["rewards/overlong/mean"] == 0.0

    def test_tools_without_an_environment(self, tmp_path):
        def look(place: str) -> str:
            """Look somewhere.

            Args:
                place: where
            """
            return "nothing"

        run = made(tmp_path, [MIXED] * 4)
        plain = Scripted(
            run.model, lambda completions, **_: [float(i % 2) for i in range(len(completions))], run.args,
            run.train_dataset.map(lambda row: {"prompt": [{"role": "user", "content": f"Goal {row['goal']}."}]}),
            processing_class=run.processing_class, tools=[look],
        )  # fmt: skip
        plain.train()
        assert plain.state.log_history[0]["groups/trained"] == 4
        assert all("not found" in foreign for _, foreign in plain.trained)


def test_later_turns_have_the_random_numbers_of_their_rows():
    """Rows 0 and 2 share their first turn; 1 and 3 end early, and nobody asks for them again."""
    now = SamplingNow(range(8, 12))
    assert now.streams([[1], [1], [1], [2]]) == [(8, 0), (9, 0), (10, 0), (11, 0)]
    assert now.streams([[1, 5, 6], [1, 5, 7]]) == [(8, 2), (9, 2)]  # rows of equal tokens are as good as each other
    assert now.streams([[1, 5, 7, 7]]) == [(9, 3)]
    assert now.streams([[3]]) is None
