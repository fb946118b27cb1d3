"""Ten faults planted into small runs: each is explained in the right sentence, and by that of no other fault."""

from __future__ import annotations

import logging
from collections.abc import Callable

import pytest
from datasets import Dataset
from peft import LoraConfig

from dapo_trl import DAPOTrainer
from dapo_trl.errors import ConfigError

from .conftest import ROOT, SHIPPED_MODEL
from .support import vllm_stand_in
from .support.recorded import config, correctness, prompts_of, recorded_rollouts

VLLM = {"use_vllm": True, "vllm_mode": "colocate", "max_completion_length": 24, "max_round_sequences": 8}
draws = vllm_stand_in.sampled
ADAPTER = LoraConfig(r=8, target_modules=["q_proj", "v_proj", "o_proj"], task_type="CAUSAL_LM")


class Run:
    """Runs to plant a fault into; each returns what is said: all warnings, and the error that ends it."""

    def __init__(self, folder, stand_in, monkeypatch, caplog, tiny, tiny_chat):
        self.folder, self.stand_in, self.monkeypatch, self.caplog = folder, stand_in, monkeypatch, caplog
        self.tiny, self.tiny_chat = tiny, tiny_chat

    def recorded(self, rewards=correctness, rollouts=recorded_rollouts, **settings):
        return self._train(self.tiny, rewards, prompts_of("mixed", "mixed"), {"rollout_func": rollouts}, settings)

    def vllm(self, model=str(SHIPPED_MODEL), sample=None, load_weights=None, peft_config=None, **settings):
        for name, function in {"sample": sample or draws(), "load_weights": load_weights}.items():
            if function is not None:
                self.monkeypatch.setattr(vllm_stand_in.Engine, name, function)
        self.stand_in(model)
        data = Dataset.from_dict({"prompt": [f"{i}+{i}=" for i in range(8)]})
        return self._train(model, odd, data, {"peft_config": peft_config}, VLLM | settings)

    def _train(self, model, rewards, data, more, settings):
        usual = {"optim": "adamw_torch", "overlong_shape": "none", "max_steps": 3, "beta": 0.0, "num_iterations": 2}
        with self.caplog.at_level(logging.WARNING, logger="dapo_trl"):
            trainer = DAPOTrainer(model, rewards, config(self.folder, **usual | settings), data, **more)
            try:
                trainer.train()
            except ConfigError as error:
                return [*self.caplog.messages, str(error)]
        return self.caplog.messages


def odd(completions, **_):
    return [float(sum(map(ord, text)) % 2) for text in completions]


def until(pushes):
    """`Engine.load_weights` to which only the first pushes get through."""
    load_weights = vllm_stand_in.Engine.load_weights

    def load(self, named):
        if len(self.pushes) >= pushes:
            named = [(name, self.model.state_dict()[name]) for name, _ in named]
        return load_weights(self, named)

    return load


def cut_off(prompts, trainer):
    found = recorded_rollouts(prompts, trainer)
    return {**found, "completion_ids": [ids[:-1] for ids in found["completion_ids"]]}


def rotated(logps):
    return logps[1:] + logps[:1]


FAULTS: dict[str, tuple[Callable[[Run], list[str]], str]] = {
    "a push that does nothing": (
        lambda run: run.vllm(run.tiny, load_weights=until(0), max_steps=4, learning_rate=1e-2),
        "vLLM still samples with the weights of step 0",
    ),
    "an adapter that goes stale": (
        lambda run: run.vllm(
            run.tiny,
            load_weights=until(4),
            push_adapter=False,
            peft_config=ADAPTER,
            max_steps=24,
            learning_rate=3e-2,
            max_grad_norm=1.0,
        ),
        "it samples with older weights or an older adapter",
    ),
    "another temperature": (
        lambda run: run.vllm(sample=draws(temperature=0.7), max_steps=1, max_completion_length=48),
        "they are of another temperature",
    ),
    "top_p without a sampling mask": (
        lambda run: run.vllm(sample=draws(top_p=0.8), max_steps=1, top_p=0.8),
        "vLLM gives the probabilities of the truncated distribution",
    ),
    "log-probabilities of other tokens": (
        lambda run: run.vllm(sample=draws(report=rotated), max_steps=1, max_completion_length=48),
        "vLLM's log-probabilities are out of place",
    ),
    "a clip of 0": (
        lambda run: run.recorded(epsilon=0.0, epsilon_high=0.0),
        "as soon as its ratio has moved at all",
    ),
    "no advantage": (
        lambda run: run.recorded(lambda completions, **_: [1.0] * len(completions), group_filter="none"),
        "belongs to completions with advantage 0",
    ),
    "all completions cut off and masked": (
        lambda run: run.recorded(rollouts=cut_off, mask_truncated_completions=True),
        "completions that are masked because they were cut off",
    ),
    "a learning rate of 0": (
        lambda run: run.vllm(run.tiny, learning_rate=0.0, max_steps=6),
        "no weight will change",
    ),
    "sequence_mask at full length": (
        lambda run: run.vllm(
            run.tiny_chat,
            sample=vllm_stand_in.noisy(0.02),
            mismatch_correction="sequence_mask",
            max_completion_length=1200,
            max_steps=1,
        ),
        "mismatch_correction is 'sequence_mask'",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_gets_its_sentence_and_no_other(
    fault, tiny_model, tiny_chat_model, stand_in, monkeypatch, caplog, tmp_path
):
    plant, sentence = FAULTS[fault]
    said = plant(Run(tmp_path, stand_in, monkeypatch, caplog, tiny_model, tiny_chat_model))
    found = {name for name, (_, part) in FAULTS.items() if any(part in line for line in said)}
    assert found == {fault}, "\n".join(said)
    assert all("\n" not in line for line in said)
    page = " ".join((ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8").split())
    assert sentence in page
