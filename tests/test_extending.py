"""docs/extending.md: every program on the page is imported as it stands there, and acts in a real run."""

from __future__ import annotations

import importlib
import re
import sys

import pytest
import torch
import yaml
from datasets import Dataset

from dapo_trl import DAPOTrainer
from dapo_trl.config import LOSS_TYPES
from dapo_trl.rollout.environments import make_env, wrap_env
from dapo_trl.run.settings import load_settings

from .conftest import ROOT
from .support.recorded import GROUP, config, prompts_of, trainer, weights

PAGE = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
FILES = dict(re.findall(r"^```python\n# (\w+)\.py\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL))
SETTINGS = re.findall(r"^```yaml\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)
GENERATED = {"max_completion_length": 12, "overlong_shape": "none", "max_steps": 2}
SUMS = Dataset.from_dict({"prompt": [f"{i}+{i}=" for i in range(16)]})


def vowels(completions, **_):
    return [sum(letter in "aeiou0123" for letter in text) / max(len(text), 1) for text in completions]


@pytest.fixture
def page(tmp_path, monkeypatch):
    """The files of the page in the current folder; `page(name)` imports one."""
    for name, text in FILES.items():
        (tmp_path / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield importlib.import_module
    for name in FILES:
        sys.modules.pop(name, None)


def settings(key: str):
    """The value of a setting as the page shows it."""
    (found,) = (values[key] for values in map(yaml.safe_load, SETTINGS) if key in values)
    return found


def test_six_files_of_at_most_forty_lines():
    assert set(FILES) == {"dual_clip", "plain_backend", "focused", "sums", "show_work", "stop_early"}
    assert all(text.count("\n") < 40 for text in FILES.values())
    assert all(f"`{name}`" in PAGE for name in LOSS_TYPES)


def test_a_loss(page, tiny_model, tmp_path):
    def trained(**changes):
        args = config(tmp_path, beta=0.0, max_steps=2, steps_per_generation=2, **changes)
        run = trainer(tiny_model, args, prompts_of(*["mixed"] * 4))
        run.train()
        return run, [row.get("clip_ratio/dual_mean") for row in run.state.log_history[:-1]]

    (ours, counted), (dapo, _) = trained(loss_type=settings("loss_type")), trained()
    assert counted == [0.0, 0.0], "no ratio is above 3 after such small steps"
    assert all(torch.equal(weight, weights(dapo)[name]) for name, weight in weights(ours).items())
    page("dual_clip").DualClip.bound = 0.5
    other, counted = trained(loss_type="dual_clip:DualClip")
    assert min(counted) > 0.2, "half of the completions are wrong, and all of their ratios are above 0.5"
    assert any(not torch.equal(weight, weights(dapo)[name]) for name, weight in weights(other).items())


def test_a_generation_backend(page, tiny_model, tmp_path, monkeypatch):
    backend, asked = page("plain_backend").PlainBackend, []
    generate = backend.generate

    def watched(self, contexts, *, limit, group_size):
        turns = generate(self, contexts, limit=limit, group_size=group_size)
        asked.append((contexts, turns.ids, limit, group_size, self.params.stop_ids))
        return turns

    monkeypatch.setattr(backend, "generate", watched)
    args = config(tmp_path, generation_backend=settings("generation_backend"), **GENERATED)
    run = DAPOTrainer(tiny_model, vowels, args, SUMS)
    before = weights(run)
    run.train()
    assert any(not torch.equal(weight, before[name]) for name, weight in weights(run).items())
    assert len(asked) >= 2
    for contexts, turns, limit, group_size, stops in asked:
        assert len(turns) == len(contexts) and (limit, group_size) == (12, GROUP)
        assert all(len(turn) == limit or turn[-1] in stops for turn in turns)
        assert not any(set(turn[:-1]) & set(stops) for turn in turns)


def test_the_backend_samples_what_the_model_says(page, tiny_model):
    """Its first token's frequencies, over contexts of unequal length, are the model's probabilities."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from dapo_trl.generation.params import SamplingParams

    model, tokenizer = AutoModelForCausalLM.from_pretrained(tiny_model), AutoTokenizer.from_pretrained(tiny_model)
    params = SamplingParams(0.5, 1.0, 0, None, 1.0, 1, (tokenizer.eos_token_id,))
    short, long = tokenizer(["1+1=", "a much longer context than the other one"])["input_ids"]
    torch.manual_seed(0)
    turns = page("plain_backend").PlainBackend(model, tokenizer, params)
    drawn = torch.tensor(turns.generate([short, long] * 3000, limit=1, group_size=1).ids).view(-1, 2)
    with torch.no_grad():
        for column, context in enumerate((short, long)):
            exact = (model(torch.tensor([context])).logits[0, -1] / 0.5).softmax(dim=-1)
            found = torch.bincount(drawn[:, column], minlength=len(exact)) / len(drawn)
            assert (found - exact).abs().max() < 4 * (exact / len(drawn)).sqrt().max()


def test_a_prompt_selector(page, tiny_model, tmp_path):
    def walked(**changes):
        args = config(tmp_path, max_steps=12, **changes)
        run = trainer(tiny_model, args, prompts_of("mixed", "right", "wrong", "mixed", "right", "wrong"))
        run.train()
        selector = run.sampling.sources[0].selector
        return selector, selector.stream.position - selector.drawn

    uniform, skipped = walked()
    assert skipped == 0 and type(uniform).__name__ == "PromptSelector"
    focused, skipped = walked(prompt_selection=settings("prompt_selection"))
    assert type(focused) is page("focused").Focused
    assert skipped > 0, "prompts that never had a mixed group are skipped"
    likely, average = focused.difficulty.chances([0, 1], [None, None]), focused.difficulty.average
    assert likely[0] > average > likely[1]
    assert focused.draw_probability(likely)[0] == 1 > focused.draw_probability(likely)[1] >= 0.05


def test_a_reward(page, tiny_model, tmp_path):
    made = page("sums")
    assert made.right(["= 27", "= 28 "], [27, 27]) == [1.0, 0.0]
    args = vars_of(config(tmp_path, **GENERATED))
    run = made.train(tiny_model, **args)
    logged = run.state.log_history[0]
    assert {"groups/all_wrong", "groups/sampled"} <= logged.keys()
    assert run.reward_func_names == ["right", "brief"] and logged["reward/sampled"] == pytest.approx(0.1)
    assert logged["groups/all_wrong"] == logged["groups/sampled"], "a group is compared by `right`"


def test_a_reward_beside_an_environment(page, tiny_model, tmp_path):
    seen = []

    def brief(completions, outcome, **more):
        seen.extend(outcome)
        return page("sums").brief(completions)

    run = DAPOTrainer(tiny_model, [brief], config(tmp_path, **GENERATED), env="math/Arithmetic-v0")
    run.train()
    assert run.reward_func_names == ["environment", "brief"]
    assert {one.verdict for one in seen} <= {"correct", "wrong", "no_answer"} and len(seen) >= 8


def test_a_wrapper(page, tiny_model, tmp_path):
    (tmp_path / "wrapped.yaml").write_text(next(text for text in SETTINGS if "env_wrappers" in text))
    run, _, _ = load_settings(
        [tmp_path / "wrapped.yaml"], ["--model", tiny_model, "--env", "math/Arithmetic-v0", "--max_steps", "1"]
    )
    env = wrap_env(make_env("math/Arithmetic-v0"), run.env_wrappers)
    env.reset(options={"index": 0})
    _, reward, _, _, info = env.step("a\nb\nc")
    assert info["rewards"]["work"] == pytest.approx(0.1) and info["accuracy"] == 0 and reward == pytest.approx(0.1)
    assert type(wrap_env(make_env("math/Arithmetic-v0"), run.env_wrappers, training=False)) is not type(env)

    outcomes = []

    def noted(completions, outcome, **_):
        outcomes.extend(outcome)
        return [0.0] * len(completions)

    DAPOTrainer(tiny_model, [noted], config(tmp_path, **GENERATED), env=env).train()
    assert outcomes and all("work" in one.components for one in outcomes)


def test_a_callback(page, tiny_model, tmp_path):
    callback = page("stop_early").StopWhenGood(goal=0.5, patience=3)
    args = config(tmp_path, max_steps=8)
    run = trainer(tiny_model, args, prompts_of(*["mixed"] * 4), callbacks=[callback])
    run.train()
    assert run.state.global_step == 3
    never = trainer(tiny_model, args, prompts_of(*["mixed"] * 4), callbacks=[type(callback)(goal=0.9)])
    never.train()
    assert never.state.global_step == 8


@pytest.mark.parametrize("name", ["loss_type", "generation_backend", "prompt_selection"])
def test_the_settings_of_the_page_are_taken_from_a_file(name, page, tmp_path):
    (tmp_path / "own.yaml").write_text(next(text for text in SETTINGS if name in text))
    flags = ["--model", "any", "--env", "math/Arithmetic-v0", "--max_steps", "1", "--use_cpu", "true"]
    _, args, _ = load_settings([tmp_path / "own.yaml"], flags)
    assert getattr(args, name) == settings(name)


def vars_of(args) -> dict:
    """The settings of `recorded.config`, as keyword arguments."""
    names = ("output_dir", "per_device_train_batch_size", "num_generations", "max_completion_length", "max_steps")
    names += ("overlong_shape", "save_strategy", "logging_steps", "report_to", "use_cpu", "bf16", "beta")
    return {name: getattr(args, name) for name in (*names, "gradient_checkpointing", "disable_tqdm")}
