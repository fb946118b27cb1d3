"""The model to measure: a folder or a Hub name, with or as a PEFT adapter."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from ..errors import ConfigError, did_you_mean, one_line

ADAPTER_CONFIG = "adapter_config.json"
DTYPES = ("auto", "float32", "bfloat16", "float16")
_BITS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def check_model_folder(path: Path, *, name: str = "model", holds: str = "config.json") -> None:
    """Find a mistyped folder before the Hub is asked for a model of that name.

    Args:
        name: of the setting.
        holds: the file by which such a folder is known.

    Raises:
        ConfigError: there is no such folder, or it holds no model.
    """
    if path.is_dir():
        if not (path / holds).is_file():
            raise ConfigError(f"{name} is {path}: the folder holds no {holds}, so it is not a saved {name}.")
    elif path.is_absolute() or (path.parent != Path(".") and path.parent.is_dir()):
        hint = did_you_mean(str(path), (str(folder) for folder in path.parent.glob("*") if folder.is_dir()))
        raise ConfigError(f"{name} is {path}: there is no such folder (looked from {Path.cwd()}).{hint}")


def is_adapter(model: str | None) -> bool:
    """Whether a model's name is the folder of a saved adapter."""
    folder = Path(model or "")
    return (folder / ADAPTER_CONFIG).is_file() and not (folder / "config.json").is_file()


def base_and_adapter(model: str, adapter: str | None) -> tuple[str, str | None]:
    """The base model and the adapter, also where the adapter's folder is given as the model.

    Raises:
        ConfigError: a folder is not there or holds something else, or two adapters are named.
    """
    if adapter is not None:
        check_model_folder(Path(adapter), name="adapter", holds=ADAPTER_CONFIG)
    folder = Path(model)
    if not is_adapter(model):
        check_model_folder(folder)
        return model, adapter
    if adapter is not None:
        raise ConfigError(f"model is {model}, which is an adapter, and adapter is {adapter}: name the base model.")
    base = json.loads((folder / ADAPTER_CONFIG).read_text(encoding="utf-8")).get("base_model_name_or_path")
    if not base:
        raise ConfigError(f"model is {model}, an adapter that does not name its base: --model BASE --adapter {model}.")
    try:
        check_model_folder(Path(base))
    except ConfigError as error:
        raise ConfigError(
            f"model is {model}, an adapter of {base}, where there is no model: --model BASE --adapter {model}."
        ) from error
    return base, model


def load(model: str, adapter: str | None, *, dtype: str, device: torch.device) -> tuple[Any, Any]:
    """The model, ready to generate, and its tokenizer: the adapter's, if that has one.

    Args:
        dtype: one of `DTYPES`; "auto" is the one it was saved in.

    Raises:
        ConfigError: it cannot be loaded.
    """
    base, adapter = base_and_adapter(model, adapter)
    try:
        loaded: Any = AutoModelForCausalLM.from_pretrained(base, dtype=dtype)
        if adapter is not None:
            loaded = PeftModel.from_pretrained(loaded, adapter)
        own = adapter is not None and (Path(adapter) / "tokenizer_config.json").is_file()
        tokenizer = AutoTokenizer.from_pretrained(adapter if own else base)
    except OSError as error:
        first = str(error).strip().splitlines()[0]
        named = f"model is {base!r} and" if base == model else f"{base!r}, the base model of {model},"
        raise ConfigError(
            f"{named} cannot be loaded: {first} (There is no such folder in {Path.cwd()} either.)"
        ) from error
    except (ValueError, TypeError, ImportError, RuntimeError, KeyError) as error:
        where = f"adapter is {adapter!r} and does not fit model {base!r}" if adapter else f"model is {base!r}"
        raise ConfigError(f"{where}: it cannot be loaded: {one_line(error)}") from error
    return loaded.to(device).eval(), tokenizer


@torch.no_grad()
def fingerprint(model: torch.nn.Module) -> str:
    """A hash of the weights, equal for equal weights of one type on every device."""
    digest = hashlib.blake2b(digest_size=8)
    for name, weights in model.state_dict().items():
        total = int(weights.contiguous().view(_BITS[weights.element_size()]).sum(dtype=torch.int64))
        digest.update(f"{name} {tuple(weights.shape)} {weights.dtype} {total}\n".encode())
    return digest.hexdigest()
