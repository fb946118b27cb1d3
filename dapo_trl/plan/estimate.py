"""Memory of a run from its settings: its passes, traced or counted, in the formulas of `memory`."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import gcd
from typing import Any, cast

import torch
from transformers import PreTrainedConfig

from ..evaluation import evaluated_at_once
from ..generation.vllm import RANKS
from ..run.lora import peft_config
from ..run.settings import RunConfig
from ..update.attention import head_size
from . import memory
from .devices import PlannedConfig
from .memory import FullestPass, Memory
from .trace import Traced, Weights, count_weights, generation, shares_prompts, training_pass, weight_dtype


def init_kwargs(args: PlannedConfig) -> dict[str, Any]:
    """Arguments that the model is loaded with."""
    return args.model_init_kwargs if isinstance(args.model_init_kwargs, dict) else {}


def loaded_dtype(config: PreTrainedConfig, args: PlannedConfig) -> torch.dtype:
    """Type of the weights as they are loaded."""
    return weight_dtype(config, init_kwargs(args))


@dataclass(frozen=True)
class Estimate:
    """Memory of one device of a run."""

    run: RunConfig
    args: PlannedConfig
    config: PreTrainedConfig
    prompt: int
    """Tokens of the longest prompt."""

    @cached_property
    def weights(self) -> Weights:
        """The model's parameters, counted."""
        four_bit = self.run.quantization == "4bit"
        return count_weights(self.config, dtype=self._dtype, adapter=peft_config(self.run), four_bit=four_bit)

    @cached_property
    def memory(self) -> Memory:
        """Bytes of the device by phase and part."""
        return Memory(self._held | self._vllm_held, self._phases)

    @cached_property
    def vllm_shortage(self) -> int:
        """Bytes that vLLM's share lacks to hold the model and one sequence; 0: it suffices, or there is none."""
        if not self._colocated:
            return 0
        sequence = self._cache(1, self.args.vllm_max_model_length or self._longest, self._computed.itemsize)
        own = sum(self._vllm_weights.values())
        least = memory.vllm_needs(own, sequence, self.args.vllm_tensor_parallel_size)
        return max(least - self._vllm_share, 0)

    @property
    def _longest(self) -> int:
        return self.prompt + self.args.max_completion_length

    @property
    def _cuda(self) -> bool:
        return self.args.card.kind == "cuda"

    @property
    def _dtype(self) -> torch.dtype:
        """Type of the weights as they are loaded."""
        return loaded_dtype(self.config, self.args)

    @property
    def _half(self) -> torch.dtype | None:
        """The type that is computed in, where it is not that of the weights."""
        return torch.bfloat16 if self.args.bf16 else torch.float16 if self.args.fp16 else None

    @property
    def _computed(self) -> torch.dtype:
        return self._half or self._dtype

    @property
    def _optimizer(self) -> str:
        return str(getattr(self.args.optim, "value", self.args.optim))

    @property
    def _colocated(self) -> bool:
        return self.args.use_vllm and self.args.vllm_mode == "colocate"

    @property
    def _vllm_share(self) -> int:
        return int(self.args.vllm_gpu_memory_utilization * self.args.card.memory)

    @property
    def _vllm_weights(self) -> dict[str, int]:
        """Bytes of vLLM's own weights, and of its buffers for an adapter that is pushed by itself."""
        run, size = self.run, self._computed.itemsize
        base = self.weights.frozen_bytes if self.weights.quantized else self.weights.base * size
        if not run.lora_rank or run.lora_dora or not self.args.push_adapter or run.lora_rank > RANKS[-1]:
            return {"vLLM: weights": base}
        adapter = memory.vllm_adapter_bytes(self.weights.trained, run.lora_rank, size)
        return {"vLLM: weights": base, "vLLM: adapter": adapter}

    @property
    def _vllm(self) -> dict[str, int]:
        """Bytes of vLLM's share by part."""
        parts, left = dict[str, int](), self._vllm_share
        for name, whole in self._vllm_weights.items():
            parts[name] = min(whole // self.args.vllm_tensor_parallel_size, left)
            left -= parts[name]
        return {**parts, "vLLM: keys and values": left}

    @cached_property
    def _model_bytes(self) -> tuple[dict[str, int], dict[str, int]]:
        return memory.model_bytes(
            self.weights, placement=self.args.placement, optimizer=self._optimizer, mixed=self._half is not None
        )

    @property
    def _held(self) -> dict[str, int]:
        held, _ = self._model_bytes
        held = dict(held)
        if self.args.beta and not self.run.lora_rank:
            held["reference model"] = memory.reference_bytes(self.weights, self._dtype.itemsize, self.args.placement)
        if self.weights.quantized:
            held["a matrix out of 4 bits"] = memory.dequantized_bytes(self.weights.largest_quantized)
        held |= {"CUDA context": memory.CUDA_CONTEXT} if self._cuda else {"Python and libraries": memory.LIBRARIES}
        return held

    @property
    def _vllm_held(self) -> dict[str, int]:
        asleep = self.args.vllm_enable_sleep_mode
        return self._vllm if self._colocated and not asleep else {}

    @property
    def _phases(self) -> dict[str, dict[str, int]]:
        _, gradients = self._model_bytes
        own = 0 if self.args.placement.offload_optimizer else gradients["gradients"]
        scratch = memory.optimizer_scratch(self._optimizer, own, self._largest_trained_bytes, cuda=self._cuda)
        phases = {**self._training(gradients["gradients"]), "the optimizer step": {**gradients, "scratch": scratch}}
        processes, on_cpu = self.args.world_size, self.args.card.kind == "cpu"
        each = -(-self.run.eval_problems * self.run.eval_samples // processes)
        measured = self._generation(min(evaluated_at_once(self.args, on_cpu=on_cpu), each)) if each else {}
        if not self.args.use_vllm:
            phases["generation"] = self._generation(cast(int, self.args.max_round_sequences) // processes)
            if on_cpu and each:  # on a GPU a measurement generates no more at once
                phases["measuring accuracy"] = measured
            return phases
        if self._colocated and self.args.vllm_enable_sleep_mode:
            phases["generation"] = self._vllm  # and measurements, but that of the model without its adapter
        if each and self.run.eval_without_adapter:
            phases["measuring accuracy"] = measured
        return phases

    @property
    def _largest_trained_bytes(self) -> int:
        weights = self.weights
        return round(weights.trained_bytes * weights.largest / max(weights.trained, 1))

    def _training(self, gradients: int) -> dict[str, dict[str, int]]:
        """The language-model head's turn in a pass, and that of the layers, beside the activations.

        Gradients of an earlier pass of the optimizer step are there throughout. In a single pass they come as the
        activations go, so that it is the beginning or the end of the backward pass that needs the most.
        """
        fullest = self.fullest
        single, tokens = fullest.passes == 1, fullest.tokens
        traced = training_pass(
            self._traced, rows=fullest.lines, length=fullest.length, checkpointing=self.args.gradient_checkpointing
        )
        text = self.config.get_text_config()
        forward, backward = memory.head_bytes(
            fullest.scored if self._cuda else tokens,
            vocabulary=text.vocab_size,
            hidden=text.hidden_size,
            size=self._computed.itemsize,
            weight_size=self._dtype.itemsize,
            trained=self.weights.head_trained,
            cuda=self._cuda,
        )
        forward += traced.forward_peak - traced.kept
        before = {"gradients": 0 if single else gradients, "activations": traced.kept}
        logits = {"logits, in tiles": backward} if backward >= forward else {"end of the forward pass": forward}
        layers = {"one layer's pass": traced.backward_peak - traced.kept}
        at_the_end = single and gradients > traced.kept
        return {
            "the logits' pass": before | logits,
            "the backward pass": ({"gradients": gradients} if at_the_end else before) | layers,
        }

    @cached_property
    def fullest(self) -> FullestPass:
        """The microbatch of the most tokens; ``auto`` counts as unset, because it fits by itself."""
        args = self.args
        unset = not isinstance(args.microbatch_tokens, int)
        return memory.fullest_pass(
            args.per_device_train_batch_size * args.gradient_accumulation_steps,
            self._sharing,
            prompt=self.prompt,
            completion=args.max_completion_length,
            budget=args.per_device_train_batch_size * self._longest if unset else cast(int, args.microbatch_tokens),
            shrinks=unset,
        )

    @property
    def _sharing(self) -> int:
        """Completions that are computed with one prompt."""
        if self.args.share_prompts == "off" or not self.args.filters_groups or self.args.neftune_noise_alpha:
            return 1
        rows = self.args.per_device_train_batch_size * self.args.gradient_accumulation_steps
        return gcd(rows, self.args.num_generations) if shares_prompts(self._traced) else 1

    def _generation(self, rows: int) -> dict[str, int]:
        """Transformers' ``generate``: at the most over all prompts at once, or at the last token."""
        traced = generation(self._traced, rows=rows, prompt=self.prompt, length=self._longest)
        cache = self._cache(rows, self._longest, self._computed.itemsize)
        scores = memory.sampling_bytes(rows, self.config.get_text_config().vocab_size)
        last = max(traced.last_peak - cache, scores)
        if traced.prompts_peak > cache + last:
            cache = self._cache(rows, self.prompt, self._computed.itemsize)
            parts = {"keys and values, so far": cache, "all prompts' pass": traced.prompts_peak - cache}
        else:
            parts = {"keys and values": cache, "scores" if last == scores else "one layer's pass": last}
        if self.args.placement.sharding == "zero3" and self.args.ds3_gather_for_generation:
            parts["weights gathered"] = self._computed.itemsize * self.weights.total
        return parts

    def _cache(self, rows: int, length: int, size: int) -> int:
        text = self.config.get_text_config()
        return memory.kv_cache_bytes(
            rows,
            length,
            layers=text.num_hidden_layers,
            heads=getattr(text, "num_key_value_heads", None) or text.num_attention_heads,
            head_size=head_size(text),
            size=size,
        )

    @cached_property
    def _traced(self) -> Traced:
        """With sharded states the weights that are computed with are in half precision, else they are cast."""
        sharding = self.args.placement.sharding
        whole = self._half is not None and sharding in ("zero2", "zero3", "fsdp2")
        return Traced(
            self.config,
            dtype=self._computed if whole else self._dtype,
            autocast=None if sharding.startswith("zero") else self._half,
            adapter=peft_config(self.run),
            four_bit=self.run.quantization == "4bit",
        )
