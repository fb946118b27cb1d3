"""The parts of TRL and transformers that we rely on: if a test fails, read `trainer.py` and `trl_internals.py` anew.

And where a `DAPOTrainer` differs from a `GRPOTrainer` by design, with DAPO's parts off, each with its reason.
"""

from __future__ import annotations

import inspect

import pytest
import trl
from datasets import Dataset
from transformers import Trainer
from trl import GRPOConfig, GRPOTrainer
from trl.generation.vllm_generation import VLLMGeneration

from dapo_trl import DAPOTrainer
from dapo_trl.errors import ConfigError, RewardError

from .support.recorded import config

PLAIN = {"group_filter": "none", "overlong_shape": "none", "per_device_train_batch_size": 4}
ROWS = Dataset.from_dict({"prompt": [f"{i}+{i}=" for i in range(8)]})


def lengths(completions, **_):
    return [float(len(text)) for text in completions]


def parameters(function) -> list[str]:
    return list(inspect.signature(function).parameters)


def test_the_version():
    assert trl.__version__.startswith("1.16.")


def test_the_signatures_we_override_or_call():
    expected = {
        "_generate": ["self", "prompts"],
        "_generate_single_turn": [
            "self", "prompt_ids", "images", "multimodal_fields", "num_generations", "has_tool_images",
        ],
        "_calculate_rewards": ["self", "inputs", "prompts", "completions", "completion_ids_list"],
        "_generate_and_score_completions": ["self", "inputs"],
        "_prepare_inputs": ["self", "generation_batch"],
        "_compute_loss": ["self", "model", "inputs"],
        "training_step": ["self", "model", "inputs", "num_items_in_batch"],
        "_save_checkpoint": ["self", "model", "trial"],
        "_load_optimizer_and_scheduler": ["self", "checkpoint"],
        "_get_grad_norm": ["self", "model", "grad_norm"],
    }  # fmt: skip
    assert {name: parameters(getattr(GRPOTrainer, name)) for name in expected} == expected


def test_the_log_prob_forward_pass():
    first = [
        "self",
        "model",
        "input_ids",
        "attention_mask",
        "logits_to_keep",
        "batch_size",
        "compute_entropy",
    ]
    assert parameters(GRPOTrainer._get_per_token_logps_and_entropies)[:7] == first


def test_generate_returns_eight_things_in_this_order():
    source = inspect.getsource(GRPOTrainer._generate)
    assert (
        "return prompt_ids, completion_ids, tool_mask, completions, logprobs, extra_fields, images, tool_images"
        in source
    )


def test_trl_rescales_the_token_count_of_the_generation_batch():
    """`num_items_in_batch` is handed over multiplied by the updates per rollout batch, which this line undoes."""
    source = inspect.getsource(GRPOTrainer._compute_loss)
    assert 'inputs["num_items_in_batch"].clamp(min=1.0) / self.accelerator.num_processes' in source
    assert "self.current_gradient_accumulation_steps / self.args.steps_per_generation" in source


def test_the_gradient_norm_is_read_once_right_before_the_optimizer_steps():
    source = inspect.getsource(Trainer._run_epoch)
    assert source.count("self._get_grad_norm(") == 1
    assert source.index("self._get_grad_norm(") < source.index("self.optimizer.step()")


def test_trl_never_scales_for_gradient_accumulation_behind_our_back():
    assert GRPOTrainer.loss_is_scaled_for_ga is True


def test_the_engine_of_vllm_is_made_by_names_that_can_be_replaced():
    """`trl_internals.Engine` stands in for one of them, and gives the other more arguments."""
    assert "self.vllm_generation = VLLMGeneration(\n" in inspect.getsource(GRPOTrainer.__init__)
    source = inspect.getsource(VLLMGeneration)
    assert "self.llm = LLM(\n" in inspect.getsource(VLLMGeneration._init_vllm)
    assert source.count("self._iter_named_params()") == 4  # one for the server's names, three that push
    assert 'if self.mode == "colocate" and self.enable_sleep_mode and self._llm_weights_sleeping:' in source


class TestByDesign:
    """What TRL's own tests of `GRPOTrainer` ask for and a `DAPOTrainer` does otherwise."""

    def test_an_optimizer_step_lies_within_one_rollout_batch(self, tmp_path):
        """So that it is normalised by the tokens of its own batch, exactly, and a checkpoint can hold what is left."""
        with pytest.raises(ConfigError, match="an optimizer step must lie within one rollout batch"):
            config(tmp_path, **PLAIN, steps_per_generation=4, gradient_accumulation_steps=3)

    def test_the_train_loader_is_a_clock_without_workers(self, tiny_model, tmp_path):
        """It yields numbers: prompts come from the stream, by position, so workers would have nothing to load.

        The loader of the evaluation is TRL's, with its workers; it has none for a stream, as in TRL.
        """
        args = config(tmp_path, **PLAIN, dataloader_num_workers=2)
        run = DAPOTrainer(tiny_model, lengths, args, ROWS, eval_dataset=ROWS)
        assert run.get_train_dataloader().num_workers == 0
        assert run.get_eval_dataloader().num_workers == 2
        streamed = DAPOTrainer(tiny_model, lengths, args, ROWS, eval_dataset=ROWS.to_iterable_dataset())
        assert streamed.get_eval_dataloader().num_workers == 0 and streamed.args.dataloader_num_workers == 2

    def test_with_vllm_long_completions_keep_their_gradient(self, tmp_path):
        """TRL drops whole completions whose ratio is above 3, which most of 16,384 tokens are at a usual difference."""
        assert GRPOConfig.vllm_importance_sampling_mode == "sequence_mask"
        assert config(tmp_path, **PLAIN).mismatch_correction == "token_truncate"

    def test_a_run_without_any_reward_ends(self, tiny_model, tmp_path):
        """TRL warns and goes on to the end; here a judge may be out of order for two rollout batches, not for ever."""

        def none(completions, **_):
            return [None] * len(completions)

        run = DAPOTrainer(tiny_model, none, config(tmp_path, **PLAIN, max_steps=8), ROWS)
        with pytest.raises(RewardError, match="in 3 rollout batches in a row"):
            run.train()
        assert run.state.global_step == 2
