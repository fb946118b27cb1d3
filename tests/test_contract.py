"""What we rely on in TRL and transformers, pinned: if one of these fails, read `trainer.py` and `collect.py` anew."""

from __future__ import annotations

import inspect

import trl
from transformers import Trainer
from trl import GRPOTrainer


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
