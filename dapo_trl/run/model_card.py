"""The model card of a run: what the model was trained from, on what, with which settings, and how accurate it is."""

from __future__ import annotations

import importlib.metadata
import json
import shlex
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import EvalResult, HfApi, ModelCard, ModelCardData

from ..errors import ConfigError, one_line
from .settings import RunConfig

_LIBRARIES = ("dapo-trl", "trl", "transformers", "peft", "torch")

_USAGE = """from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained("PATH")  # an adapter is put on its base model, with peft installed
tokenizer = AutoTokenizer.from_pretrained("PATH")
"""


@dataclass
class CardFacts:
    """All that a model card says, but for the optimizer step."""

    base: str
    """Folder or Hub name of the model that training started from."""
    env: str
    """Id of the environment, or the names of several with their ids and shares."""
    env_kwargs: dict[str, Any]
    """Its arguments."""
    asked: dict[str, Any]
    """The settings as they were given, nothing filled in, as plain data."""
    adapter: bool
    """The saved weights are a PEFT adapter on the base model."""
    command: str = ""
    """The command line of the run."""
    measured: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Measurements by when they were made ("before" and "after"), as in ``evaluation_<when>.json``."""


def facts_of(run: RunConfig, asked: dict[str, Any]) -> CardFacts:
    """The facts of a run that begins."""
    shown = {name: value for name, value in asked.items() if not name.endswith("_token")}  # hub_token is a secret
    flags = (flag for flag in sys.argv[1:] if not any(str(asked[name]) in flag for name in asked.keys() - shown.keys()))
    return CardFacts(
        str(run.model), run.env_text, _arguments(run), shown, bool(run.lora_rank), shlex.join(["dapo-trl", *flags])
    )


def _arguments(run: RunConfig) -> dict[str, Any]:
    """The arguments of the environment, or those of several by their names."""
    entries = run.entries()
    return entries[0].kwargs if len(entries) == 1 else {one.name: one.kwargs for one in entries if one.kwargs}


def model_card(facts: CardFacts, step: int) -> ModelCard:
    """The card of the weights after ``step`` optimizer steps. A measurement after training becomes an evaluation result
    in its metadata, as the Hub shows it."""
    after = facts.measured.get("after")
    local = Path(facts.base).exists()
    name = Path(facts.base).name if local else facts.base
    data = ModelCardData(
        base_model=None if local else facts.base,
        library_name="peft" if facts.adapter else "transformers",
        pipeline_tag="text-generation",
        tags=["dapo", "dapo-trl", "trl", "reinforcement-learning"],
        model_name=Path(name).name if after else None,
        eval_results=[_result(facts, after)] if after else None,
    )
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in _LIBRARIES)
    parts = [
        f"---\n{data.to_yaml()}\n---",
        f"# {Path(name).name} trained with DAPO on {facts.env}",
        f"Trained from `{name}` by {step} optimizer steps of reinforcement learning with verifiable rewards (DAPO, "
        "[arXiv 2503.14476](https://arxiv.org/abs/2503.14476)).",
        f"**Task:** `{facts.env}`" + (f" with `{json.dumps(facts.env_kwargs)}`" if facts.env_kwargs else "") + ".",
        *([_accuracy(facts)] if facts.measured else []),
        f"## How to use it\n\n```python\n{_USAGE}```",
        f"## How it was trained\n\n```bash\n{facts.command}\n```\n\nSettings as given; all others have their defaults:"
        f"\n\n```yaml\n{yaml.safe_dump(facts.asked, sort_keys=False)}```\n\n{versions}.",
    ]
    return ModelCard("\n\n".join(parts) + "\n")


def _accuracy(facts: CardFacts) -> str:
    rows = ["| held-out accuracy | avg@k | 95 % interval | problems x samples |", "|---|---|---|---|"]
    for when, found in facts.measured.items():
        low, high = found["interval_95"]
        size = f"{found['problems']} x {found['samples']}"
        rows.append(f"| {when} training | {found['accuracy']:.3f} | {low:.3f} to {high:.3f} | {size} |")
    return "\n".join(rows)


def _result(facts: CardFacts, found: dict[str, Any]) -> EvalResult:
    low, high = found["interval_95"]
    return EvalResult(
        task_type="text-generation",
        dataset_type=facts.env,
        dataset_name=facts.env,
        metric_type="accuracy",
        metric_name=f"held-out avg@{found['samples']}, 95 % interval {low:.3f} to {high:.3f}",
        metric_value=round(found["accuracy"], 4),
    )


def how_to_use(facts: CardFacts, folder: Path) -> list[str]:
    """Lines that say how the weights in a folder are loaded, served and published."""
    if facts.adapter:
        return [
            f'load it:    AutoPeftModelForCausalLM.from_pretrained("{folder}")   (peft)',
            f"serve it:   vllm serve {facts.base} --enable-lora --lora-modules trained={folder}",
            f"one model:  dapo-trl merge --adapter {folder} --output {folder}-merged",
            f"publish it: hf upload YOUR-NAME/YOUR-MODEL {folder}",
        ]
    return [
        f'load it:    AutoModelForCausalLM.from_pretrained("{folder}")   (transformers)',
        f"serve it:   vllm serve {folder}",
        f"publish it: hf upload YOUR-NAME/YOUR-MODEL {folder}",
    ]


def publish(folder: Path, repository: str, *, token: str | None, revision: str | None) -> str:
    """Upload saved weights with their card (not the training arguments, which may hold a token); returns the address.

    Raises:
        ConfigError: The Hub does not take them; names the command that uploads them later.
    """
    try:
        HfApi(token=token).upload_folder(
            repo_id=repository,
            folder_path=folder,
            commit_message="Trained with dapo-trl",
            revision=revision,
            ignore_patterns=["training_args.bin"],
        )
    except Exception as error:  # whatever the network does to a run that has ended
        raise ConfigError(
            f"the model was not pushed to the Hub ({one_line(error)}). It is complete in {folder}: hf upload "
            f"{repository} {folder}"
        ) from error
    return f"https://huggingface.co/{repository}"


def write_card(facts: CardFacts, folder: Path, step: int) -> None:
    """Write ``README.md`` beside saved weights, in place of one that PEFT or TRL made."""
    (folder / "README.md").write_text(str(model_card(facts, step)), encoding="utf-8")
