"""LoRA and QLoRA from the settings of a run."""

from __future__ import annotations

from importlib.util import find_spec

import torch
from peft import LoraConfig
from transformers import BitsAndBytesConfig

from .errors import ConfigError
from .settings import RunConfig


def peft_config(run: RunConfig) -> LoraConfig | None:
    """The adapter that a run trains; None: it trains all weights."""
    if not run.lora_rank:
        return None
    return LoraConfig(
        r=run.lora_rank,
        lora_alpha=run.lora_alpha if run.lora_alpha is not None else 2 * run.lora_rank,
        lora_dropout=run.lora_dropout,
        target_modules=run.lora_targets,
        use_rslora=run.lora_rslora,
        use_dora=run.lora_dora,
        task_type="CAUSAL_LM",
    )


def has_bitsandbytes() -> bool:
    return find_spec("bitsandbytes") is not None


def quantization_config(run: RunConfig, *, fp16: bool = False) -> BitsAndBytesConfig | None:
    """How the frozen weights are stored; None: as they are loaded.

    Args:
        fp16: products are computed in float16, for a GPU without bfloat16.

    Raises:
        ConfigError: bitsandbytes is not installed.
    """
    if run.quantization is None:
        return None
    if not has_bitsandbytes():
        raise ConfigError(
            "quantization is '4bit' and bitsandbytes is not installed: pip install 'dapo-trl[quant]', or set "
            "quantization to null."
        )
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.float16 if fp16 else torch.bfloat16,
    )
