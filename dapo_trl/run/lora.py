"""LoRA and QLoRA: from the settings of a run to an adapter, and from a saved adapter to a full model."""

from __future__ import annotations

import dataclasses
import json
import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

import torch
from huggingface_hub import ModelCard
from peft import LoraConfig, PeftConfig, PeftModel
from peft.utils import CONFIG_NAME
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig, PreTrainedModel
from trl.trainer.utils import create_model_from_path

from ..config import DAPOConfig
from ..errors import ConfigError, did_you_mean, one_line
from ..evaluation.loading import base_and_adapter, is_adapter
from .settings import RunConfig
from .startup import check_folder


def peft_config(run: RunConfig) -> LoraConfig | None:
    """PEFT's configuration of the adapter that a run trains; None: the run trains all weights."""
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


def start_model(run: RunConfig, args: DAPOConfig) -> dict[str, Any]:
    """The trainer's arguments that say which weights a run begins with, and which of them it trains.

    A saved adapter as the model goes on being trained, with its own settings, on its base model.

    Raises:
        ConfigError: There is no such folder, or the adapter does not fit its base.
    """
    base, adapter = base_and_adapter(str(run.model), None)
    quantization = quantization_config(run, fp16=args.fp16)
    if adapter is None:
        return {"model": base, "peft_config": peft_config(run), "quantization_config": quantization}
    loading = {"trust_remote_code": args.trust_remote_code, **cast(dict[str, Any], args.model_init_kwargs or {})}
    if quantization is not None:
        loading["quantization_config"] = quantization
    if args.world_size > 1:
        loading["device_map"] = None  # each process has a device of its own
    try:
        model = PeftModel.from_pretrained(create_model_from_path(base, **loading), adapter, is_trainable=True)
    except (RuntimeError, ValueError, TypeError, KeyError) as error:
        raise ConfigError(
            f"model is {adapter}, an adapter that does not fit its base {base}: {one_line(error)}"
        ) from error
    own = (Path(adapter) / "tokenizer_config.json").is_file()
    tokenizer = AutoTokenizer.from_pretrained(adapter if own else base, padding_side="left", truncation_side="left")
    return {"model": model, "processing_class": tokenizer}


def as_new_adapter(run: RunConfig) -> RunConfig:
    """A run that trains a saved adapter further, as one with a new adapter of that shape on its base: they take the
    same memory and time."""
    if not is_adapter(run.model):
        return run
    base, adapter = base_and_adapter(str(run.model), None)
    saved = json.loads((Path(str(adapter)) / CONFIG_NAME).read_text(encoding="utf-8"))
    known = {
        field.name: getattr(run, field.name) for field in dataclasses.fields(run) if field.name.startswith("lora_")
    }
    names = {"lora_rank": "r", "lora_alpha": "lora_alpha", "lora_dropout": "lora_dropout"}
    names |= {"lora_targets": "target_modules", "lora_rslora": "use_rslora", "lora_dora": "use_dora"}
    shape = {name: saved.get(names[name]) or default for name, default in known.items()}
    return dataclasses.replace(run, model=base, **shape)


def check_targets(run: RunConfig) -> None:
    """Refuse a name in ``lora_targets`` that no module of the model has, before weights are loaded.

    Raises:
        ConfigError: with the names of the model's linear modules.
    """
    if not run.lora_rank or run.lora_targets == "all-linear":
        return
    try:
        config = AutoConfig.from_pretrained(str(run.model))
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config)
    except Exception:  # a model that cannot be made so is refused, or targeted, where it is loaded
        return
    names = [name for name, _ in model.named_modules()]
    given = run.lora_targets
    for target in [given] if isinstance(given, str) else given:
        try:
            pattern = re.compile(target if isinstance(given, str) else rf"(.*\.)?{re.escape(target)}")
        except re.error as error:
            raise ConfigError(f"lora_targets is {target!r}, which is no regular expression: {error}.") from error
        if not any(map(pattern.fullmatch, names)):
            linear = {name.rpartition(".")[2]: None for name, m in model.named_modules() if isinstance(m, nn.Linear)}
            raise ConfigError(
                f"lora_targets names {target!r}, and {run.model} has no such module.{did_you_mean(target, linear)} Its "
                f"linear modules are {', '.join(linear)}; 'all-linear' takes all but the head."
            )


def idle_adapter_settings(run: RunConfig) -> list[str]:
    """A warning of adapter settings without effect, because no adapter is trained, or one with settings of its own."""
    old = is_adapter(run.model)
    if run.lora_rank and not old:
        return []
    settings = [field for field in dataclasses.fields(run) if field.name.startswith("lora_")]
    idle = [field.name for field in settings if getattr(run, field.name) != field.default]
    reason = (
        "model is an adapter, which keeps its own settings" if old else "lora_rank is 0 and all weights are trained"
    )
    return [f"{', '.join(idle)}: no effect, because {reason}."] if idle else []


def has_bitsandbytes() -> bool:
    """Whether bitsandbytes is installed."""
    return find_spec("bitsandbytes") is not None


def quantization_config(run: RunConfig, *, fp16: bool = False) -> BitsAndBytesConfig | None:
    """How the frozen weights are quantized; None: not at all.

    Args:
        fp16: compute products in float16, for a GPU without bfloat16.

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


def merge_adapter(adapter: Path, output: Path, base: str | None = None, *, dtype: str = "auto") -> PreTrainedModel:
    """Merge an adapter into its base model and write the full model, which loads without PEFT.

    Args:
        adapter: a folder with a saved adapter, a run's ``model`` or one of its checkpoints.
        output: a folder that does not exist yet, or is empty.
        base: folder or Hub name of the base model; None: the one that the adapter names.
        dtype: precision of the merged weights; "auto": the base model's. Half precision loses part of a small update;
            "float32" keeps all of it.

    Raises:
        ConfigError: the adapter, the output folder or the base model cannot be used.
    """
    if not adapter.is_dir():
        raise ConfigError(f"adapter is {adapter}: there is no such folder (looked from {Path.cwd()}).")
    if not (adapter / CONFIG_NAME).is_file():
        raise ConfigError(
            f"adapter is {adapter}: there is no {CONFIG_NAME} in it, so it is not a saved adapter. A run with "
            "lora_rank saves one in its folder's model, and in each checkpoint."
        )
    if output.is_file() or (output.is_dir() and any(output.iterdir())):
        raise ConfigError(f"output is {output}: it exists already. Name a folder that does not.")
    check_folder("output", output)
    try:
        config = PeftConfig.from_pretrained(str(adapter))
    except (ValueError, TypeError, KeyError) as error:
        raise ConfigError(f"adapter is {adapter}: its {CONFIG_NAME} cannot be read: {one_line(error)}") from error
    if config.is_prompt_learning:
        raise ConfigError(
            f"adapter is {adapter}, a {config.peft_type.value}: it has no weights to merge, as LoRA's has."
        )
    name = base or config.base_model_name_or_path
    if not name:
        raise ConfigError(f"adapter is {adapter}: it does not name its base model. Name it with --base.")
    try:
        model = AutoModelForCausalLM.from_pretrained(str(name), dtype=dtype)
    except (OSError, ValueError) as error:
        first = str(error).strip().splitlines()[0]
        raise ConfigError(f"base is {name!r} and cannot be loaded: {first} Name the base model with --base.") from error
    try:
        merged = PeftModel.from_pretrained(model, str(adapter)).merge_and_unload(safe_merge=True)
    except (ValueError, RuntimeError) as error:  # layers that are missing or have another shape
        raise ConfigError(
            f"adapter {adapter} does not fit base {name!r}: it was trained on another model. Name that with --base."
        ) from error
    merged.save_pretrained(output)
    if (adapter / "README.md").is_file():
        card = ModelCard.load(adapter / "README.md")
        card.data.library_name = "transformers"
        card.save(output / "README.md")
    own = (adapter / "tokenizer_config.json").is_file()
    AutoTokenizer.from_pretrained(str(adapter if own else name)).save_pretrained(output)
    return merged
