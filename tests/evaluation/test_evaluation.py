"""Samples of a model, what they come to, and that measuring leaves the world as it was."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from dapo_trl.errors import ConfigError
from dapo_trl.evaluation import Evaluator, Sampling, evaluate
from dapo_trl.evaluation.results import Evaluation, merge, notes
from dapo_trl.generation.seeded import RandomNumbers, draw_tokens
from dapo_trl.rollout.environments import make_env
from envs import Judgement, TaskEnv, Verdict

from ..conftest import SHIPPED_MODEL

NAN = float("nan")


@pytest.fixture(scope="module")
def shipped():
    model = AutoModelForCausalLM.from_pretrained(SHIPPED_MODEL, dtype=torch.float32)
    return model, AutoTokenizer.from_pretrained(SHIPPED_MODEL)


def of(accuracy, levels=None, answers=None) -> Evaluation:
    accuracy = np.array(accuracy, dtype=float)
    names = np.where(np.isnan(accuracy), "infra_failure", np.where(accuracy == 1, "correct", "wrong"))
    return Evaluation(
        accuracy=accuracy,
        lengths=np.full(accuracy.shape, 3.0),
        truncated=accuracy == 0,
        verdicts=names.astype(object),
        answers=np.array(answers or np.full(accuracy.shape, None), dtype=object),
        levels=levels or [None] * len(accuracy),
        room=8,
        temperature=1.0,
        top_p=1.0,
    )


class TestDrawing:
    def test_tokens_come_as_often_as_the_model_says(self):
        logits = torch.log(torch.tensor([0.5, 0.3, 0.15, 0.05])).repeat(20_000, 1)
        numbers = torch.from_numpy(np.random.default_rng(0).random(len(logits)))

        def shares(**shape):
            return (torch.bincount(draw_tokens(logits, numbers, **shape), minlength=4) / len(logits)).tolist()

        assert shares(temperature=1.0, top_p=1.0) == pytest.approx([0.5, 0.3, 0.15, 0.05], abs=0.01)
        assert shares(temperature=1.0, top_p=0.7) == pytest.approx([0.625, 0.375, 0, 0], abs=0.01)
        assert shares(temperature=1.0, top_p=0.4) == [1, 0, 0, 0]
        flat = [0.5**0.5, 0.3**0.5, 0.15**0.5, 0.05**0.5]
        assert shares(temperature=2.0, top_p=1.0) == pytest.approx([x / sum(flat) for x in flat], abs=0.01)
        assert shares(temperature=0.0, top_p=1.0) == [1, 0, 0, 0]

    def test_only_possible_tokens_are_drawn_at_either_end(self):
        logits = torch.tensor([[-torch.inf, 0.0, 0.0, -torch.inf]]).repeat(2, 1)
        numbers = torch.tensor([0.0, 1.0 - 2.0**-53], dtype=torch.float64)
        assert draw_tokens(logits, numbers, temperature=1.0, top_p=1.0).tolist() == [1, 2]

    def test_random_numbers_are_those_of_one_sample(self):
        keys = list(np.ndindex(2, 3, 4))
        together, backwards = RandomNumbers(keys), RandomNumbers(keys[::-1])
        assert len(set(together.at(0).tolist())) == 24
        seen = {}
        for step in (3, 0, 12, 64, 69, 200):
            seen[step] = together.at(step).copy()
            assert seen[step].tolist() == backwards.at(step)[::-1].tolist()
        later = RandomNumbers(keys[:2], [64, 7])
        assert later.at(5).tolist() == [seen[69][0], seen[12][1]]
        assert RandomNumbers([(-1, 0, 0)]).at(0) != RandomNumbers([(1, 0, 0)]).at(0)


class Again(TaskEnv):
    """Asks three times, if it can."""

    num_rows, max_turns = 20, 3

    def row(self, index):
        return {"prompt": f'Compute {index} + 5 digit by digit, then give the result as "Answer: <number>".\n'}

    def reply(self, row, turns):
        return f"\n{row['prompt']}" if len(turns[-1]) % 5 else None

    def verify(self, row, completion):
        return False


@pytest.mark.parametrize("name", ["math/Arithmetic-v0", "many turns"])
def test_samples_do_not_depend_on_the_batch_the_order_or_what_is_asked_for_besides(shipped, name):
    """Four of them drawn alone, and among many in batches of another size."""
    env = Again() if name == "many turns" else make_env(name, split="test", levels=[1, 3])
    room = 200 if name == "many turns" else 48

    def texts(indices, k, batch_tokens):
        evaluator = Evaluator(*shipped, env, Sampling(top_p=1.0, max_completion_length=room), batch_tokens=batch_tokens)
        problems = evaluator.problems(indices)
        jobs = [(place, number) for place in range(len(problems)) for number in range(k)]
        found = [sample for batch in evaluator.samples(problems, jobs) for sample in batch]
        return {(sample.index, sample.number): sample.completion for sample in found}

    many, few = texts(range(8), 3, 10_000), texts([5, 2], 2, 300)
    assert len(many) == 24 and len(set(many.values())) > 12
    assert name != "many turns" or any(text.count("Compute") == 2 for text in few.values())
    assert few == {key: many[key] for key in few} and len(few) == 4


def test_batches_are_of_bounded_tokens_and_similar_length_the_longest_first(shipped):
    env = make_env("math/Arithmetic-v0", levels=[1, 9])
    evaluator = Evaluator(*shipped, env, Sampling(max_completion_length=20), batch_tokens=500)
    problems = evaluator.problems(range(30))
    batches = evaluator._batches(problems, [(place, 0) for place in range(30)])
    widths = [max(len(problems[place].ids) for place, _ in batch) for batch in batches]
    assert widths == sorted(widths) and sum(map(len, batches)) == 30
    assert all(len(batch) * (width + 20) <= 500 for batch, width in zip(batches, widths, strict=True))
    assert all(len(batch) > 3 for batch in batches[:-1])


def test_memory_that_runs_out_halves_the_batch(shipped, monkeypatch):
    evaluator = Evaluator(*shipped, make_env("math/Arithmetic-v0", levels=1), Sampling(max_completion_length=16))
    problems, sizes, run_episodes = evaluator.problems(range(5)), [], evaluator._run_batch

    def scarce(problems, batch):
        sizes.append(len(batch))
        if len(batch) > 2:
            raise torch.OutOfMemoryError
        return run_episodes(problems, batch)

    monkeypatch.setattr(evaluator, "_run_batch", scarce)
    found = [sample.index for batch in evaluator.samples(problems, [(i, 0) for i in range(5)]) for sample in batch]
    assert sorted(found) == [0, 1, 2, 3, 4] and max(sizes) == 5 and sizes.count(1) + 2 * sizes.count(2) == 5
    monkeypatch.setattr(evaluator, "_run_batch", lambda problems, batch: scarce(problems, batch * 3))
    with pytest.raises(ConfigError, match="memory ran out on a single completion of up to 16 tokens"):
        list(evaluator.samples(problems, [(0, 0)]))


def test_measuring_leaves_random_state_and_mode_alone_and_repeats_itself(shipped):
    model, tokenizer = shipped
    model.train()
    env = make_env("math/Arithmetic-v0", split="test")
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    progress = []
    sampling = Sampling(max_completion_length=6)
    found = [
        evaluate(
            model, tokenizer, env, range(5), k=2, sampling=sampling, batch_tokens=160,
            on_batch=lambda *done: progress.append(done),
        )
        for _ in range(2)
    ]  # fmt: skip
    assert torch.equal(torch.rand(3), expected) and model.training
    assert np.array_equal(found[0].lengths, found[1].lengths) and found[0].accuracy.shape == (5, 2)
    once = progress[: len(progress) // 2]
    assert progress == once * 2 and once == sorted(once) and len(once) > 1 and once[-1] == (10, 10)
    assert sum(found[0].verdict_counts().values()) == 10


def test_what_the_environment_read_is_voted_on_and_a_failure_is_not_scored(shipped):
    class Odd(TaskEnv):
        num_rows = 3

        def row(self, index):
            return {"prompt": f"Compute {index} + 1 digit by digit", "info": {"level": index % 2}}

        def verify(self, row, completion):
            if row["info"]["level"]:
                return Judgement(Verdict.INFRA_FAILURE, NAN)
            return Judgement(Verdict.CORRECT, 1.0, "because", {"answer": 7})

    found = evaluate(*shipped, Odd(), range(3), k=2, sampling=Sampling(max_completion_length=4))
    assert found.answers.tolist() == [["7", "7"], [None, None], ["7", "7"]] and found.levels == [0, 1, 0]
    summary = found.summary()
    assert summary["unscorable"] == 2 and summary["accuracy"] == 1.0 and summary["by_k"][-1]["maj_at_k"] == 1.0
    assert summary["by_level"] == {"0": 1.0, "1": None} and summary["verdicts"] == {"correct": 4, "infra_failure": 2}
    json.dumps(summary, allow_nan=False)


def test_a_context_too_short_is_an_error_before_anything_is_drawn(shipped):
    with pytest.raises(ConfigError, match="the model's context holds"):
        evaluate(*shipped, make_env("math/Arithmetic-v0"), [0], sampling=Sampling(max_completion_length=10**6))


class TestFigures:
    def test_by_level(self):
        assert of([[1, 1], [0, 1], [0, 0]], levels=[2, 1, 1]).by_level() == {1: 0.25, 2: 1.0}
        assert list(of([[1], [0]], levels=["hard", 2]).by_level()) == [2, "hard"]

    def test_every_figure_has_its_interval(self):
        summary = of([[1, 1, 0]] * 10 + [[0, 0, 1]] * 10, levels=[1] * 10 + [2] * 10).summary()
        assert summary["accuracy"] == pytest.approx(0.5) and summary["interval_95"][0] < 0.5 < summary["interval_95"][1]
        assert [row["k"] for row in summary["by_k"]] == [1, 2, 3] and summary["by_k"][0]["maj_at_k"] is None
        assert summary["by_k"][1]["pass_at_k"] == pytest.approx((1 + 2 / 3) / 2)
        assert [row["level"] for row in summary["levels"]] == [1, 2]
        shares = {row["verdict"]: row["share"] for row in summary["verdict_shares"]}
        assert shares == pytest.approx({"correct": 0.5, "wrong": 0.5}) and summary["truncated"] == pytest.approx(0.5)
        for low, high in (row["share_interval_95"] for row in summary["verdict_shares"]):
            assert low < 0.5 < high

    def test_what_a_reader_must_know_is_said(self):
        def said(*accuracy, **more):
            return " ".join(notes(of(accuracy, **more).summary(), 8))

        assert "there is nothing to resample: 0.292 to 1.000 is what 3 problems leave open" in said([1], [1], [1])
        assert "nothing to resample" not in said([1], [0])
        assert "50% of the completions were cut off at 8 tokens" in said([1], [0]) and "cut off" not in said([1])
        assert "1 of 2 samples could not be scored" in said([1, NAN]) and "scored" not in said([1, 1])
        assert "No maj@k" in said([1]) and "No maj@k" not in said([1], answers=[["7"]])

    def test_nothing_scorable(self):
        nothing = of([[NAN]], levels=[1])
        assert np.isnan([nothing.mean, *nothing.interval(), nothing.by_level()[1]]).all()
        assert nothing.summary()["accuracy"] is None and nothing.summary()["interval_95"] == [None, None]

    def test_merge(self):
        both = merge([of([[1, 1]], levels=[1]), of([[0, 0], [0, 1]], levels=[1, 2])])
        assert both.accuracy.shape == (3, 2) and both.levels == [1, 1, 2]
        assert both.verdict_counts() == {"correct": 3, "wrong": 3}


@pytest.mark.parametrize(
    ("sampling", "k", "message"),
    [
        (Sampling(), 0, "k is 0: it must be from 1 to 1024"),
        (Sampling(), 2000, "k is 2000"),
        (Sampling(temperature=-1), 1, "temperature is -1: it must be 0 or more"),
        (Sampling(temperature=0), 2, "all completions of a problem would be the same. Set k to 1"),
        (Sampling(top_p=0), 1, r"top_p is 0: it must lie in \(0, 1\]"),
        (Sampling(max_completion_length=0), 1, "max_completion_length is 0"),
    ],
)
def test_what_cannot_be_drawn(sampling, k, message):
    with pytest.raises(ConfigError, match=message):
        sampling.check(k)
