"""Parameters of a run, counted on a model that has shapes and no data (PyTorch's meta device)."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from peft import PeftConfig, get_peft_model
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig
from transformers.quantizers.base import get_keys_to_not_convert

from ..errors import ConfigError, one_line
from ..evaluation.loading import check_model_folder

BLOCK, OUTER_BLOCK = 64, 256
NF4_BYTES = (4 + 8 / BLOCK + 32 / (BLOCK * OUTER_BLOCK)) / 8
"""Bytes of a weight in NF4 with double quantisation: 4 bits, an 8-bit constant for each block of 64, a 32-bit one for
each 256 of those (QLoRA, arXiv 2305.14314, section 3)."""


@dataclass(frozen=True)
class Weights:
    """Parameters by what becomes of them; shared ones count once."""

    trained: int
    trained_bytes: int
    """as they are loaded, and so their gradients"""
    frozen: int
    frozen_bytes: int
    quantized: int
    """of the frozen: stored in 4 bits"""
    largest_quantized: int
    """of the largest matrix stored in 4 bits"""
    layer: int
    """of the largest layer"""
    outside: int
    """outside the layers: embeddings, last norm, language-model head"""
    head: int
    """of the language-model head, whether shared with the embeddings or not"""
    head_trained: bool
    largest: int
    """of the largest trained parameter"""
    base: int
    """of the model without adapter"""

    @property
    def total(self) -> int:
        return self.trained + self.frozen


def read_config(model: str) -> PreTrainedConfig:
    """The shape of a model: a folder, a ``config.json``, or a name of the Hub.

    Raises:
        ConfigError: there is none.
    """
    path = Path(model)
    if path.suffix != ".json":
        check_model_folder(path)
    elif not path.is_file():
        raise ConfigError(f"model is {model}: there is no such file (looked from {Path.cwd()}).")
    try:
        return AutoConfig.from_pretrained(model)
    except (OSError, ValueError, KeyError) as error:
        raise ConfigError(
            f"model is {model!r} and its config.json cannot be read ({one_line(error).split('. ')[0][:160]}). Give a "
            "local folder or a config.json: --model path/to/config.json (some are in configs/models)."
        ) from error


def empty_model(config: PreTrainedConfig, dtype: torch.dtype) -> Any:
    """The model as TRL builds it, on whatever device is the default: ``with torch.device("meta"):``."""
    name = (config.architectures or [""])[0]
    architecture = getattr(transformers, name, AutoModelForCausalLM)
    build = getattr(architecture, "_from_config", AutoModelForCausalLM.from_config)
    try:
        return build(config, dtype=dtype)
    except (ValueError, AttributeError) as error:
        raise ConfigError(f"the model cannot be built: {one_line(error)}") from error


def with_adapter(model: Any, adapter: PeftConfig | None, *, four_bit: bool = False) -> Any:
    """The model with PEFT's adapter on it. Its weights are float32 as PEFT makes them; on 4-bit weights TRL casts them
    to bfloat16, but for DoRA's magnitudes."""
    if adapter is None:
        return model
    try:
        adapted = get_peft_model(model, copy.deepcopy(adapter))
    except (ValueError, AttributeError, TypeError) as error:
        raise ConfigError(f"the adapter does not fit the model: {one_line(error)}") from error
    for name, parameter in adapted.named_parameters():
        if four_bit and parameter.requires_grad and "lora_magnitude_vector" not in name:
            parameter.data = parameter.data.to(torch.bfloat16)
    return adapted


def weight_dtype(config: PreTrainedConfig, init: dict[str, Any]) -> torch.dtype:
    """What a model's weights are loaded as: TRL takes float32 unless ``model_init_kwargs`` says otherwise."""
    asked = init.get("dtype", "float32")
    if asked in ("auto", None):
        return config.dtype if isinstance(config.dtype, torch.dtype) else torch.float32
    found = asked if isinstance(asked, torch.dtype) else getattr(torch, str(asked), None)
    if not isinstance(found, torch.dtype):
        raise ConfigError(f"model_init_kwargs has dtype {asked!r}: it must be float32, bfloat16, float16 or auto.")
    return found


def count_weights(
    config: PreTrainedConfig, *, dtype: torch.dtype, adapter: PeftConfig | None = None, four_bit: bool = False
) -> Weights:
    """Count exactly, by building the model and its adapter without data.

    Args:
        dtype: what the weights are loaded as.
        adapter: of PEFT, with its ``modules_to_save``.
        four_bit: the linear layers but the language-model head are in NF4.
    """
    with torch.device("meta"):
        model = empty_model(config, dtype)
        base = sum(p.numel() for p in model.parameters())
        four = _four_bit(model) if four_bit else set()
        model = with_adapter(model, adapter, four_bit=four_bit)
    trained = frozen = quantized = 0
    trained_bytes = frozen_bytes = largest = largest_quantized = 0
    for parameter in model.parameters():
        count, size = parameter.numel(), parameter.element_size()
        if id(parameter) in four:
            quantized += count
            largest_quantized = max(largest_quantized, count)
            frozen_bytes += round(count * NF4_BYTES)
            frozen += count
        elif parameter.requires_grad:
            trained += count
            trained_bytes += count * size
            largest = max(largest, count)
        else:
            frozen += count
            frozen_bytes += count * size
    layer, outside = _layers(model)
    head = model.get_output_embeddings()
    return Weights(
        trained=trained,
        trained_bytes=trained_bytes,
        frozen=frozen,
        frozen_bytes=frozen_bytes,
        quantized=quantized,
        largest_quantized=largest_quantized,
        layer=layer,
        outside=outside,
        head=0 if head is None else head.weight.numel(),
        head_trained=head is not None and any(p.requires_grad for p in head.parameters()),
        largest=largest,
        base=base,
    )


def _four_bit(model: nn.Module) -> set[int]:
    """The parameters that transformers hands to bitsandbytes: those of the linear layers, without the head and what is
    shared with it."""
    kept = get_keys_to_not_convert(model)
    return {
        id(module.weight)
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and not any(key == name or key in name.split(".") for key in kept)
    }


def _layers(model: nn.Module) -> tuple[int, int]:
    """Parameters of the largest layer, and those outside all layers."""
    stacks = [module for module in model.modules() if isinstance(module, nn.ModuleList)]
    layers = max(stacks, key=len, default=nn.ModuleList())
    sizes = [sum(p.numel() for p in layer.parameters()) for layer in layers]
    return max(sizes, default=0), sum(p.numel() for p in model.parameters()) - sum(sizes)
