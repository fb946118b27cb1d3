"""Settings of a run: configuration files merged from left to right, then flags, checked by name and by type."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..config import DAPOConfig
from ..errors import ConfigError, one_line
from ..evaluation import BATCH_TOKENS, Sampling
from ..rollout.environments import wrapper_settings
from ..settings import names_of, read_files, read_flags


@dataclass
class RunConfig:
    """What `dapo-trl train` needs beside a `DAPOConfig`: the model, the task, and how the result is measured."""

    model: str | None = None
    """folder or Hub name of the model to train"""
    env: str | None = None
    """id of the Gymnasium environment to train on"""
    env_kwargs: dict[str, Any] = field(default_factory=dict)
    """arguments of the environment"""
    env_wrappers: list[Any] = field(default_factory=list)
    """wrappers of the environment, from the inside out, each a name or a name with its arguments:
    ``[{RepetitionPenalty: {max_penalty: 0.5}}, {FormatReward: {form: think}}]``; one of your own is
    ``your_module:YourWrapper``. Those that only shape the reward are left out when accuracy is measured"""
    record_verdicts: bool = False
    """keep every completion with its verdict in ``verdicts-*.jsonl``, a file for each process, to be judged again by
    `envs.replay`; it takes as much room as all the text that the model writes"""
    record_rollouts: int = 8
    """so many completions of each rollout batch are kept with their tokens, in ``rollouts-*.jsonl``, to be looked at in
    the report (64 MB at most, evenly over the run); 0: none"""
    eval_env: str | None = None
    """environment to measure on; None: the one trained on"""
    eval_env_kwargs: dict[str, Any] = field(default_factory=dict)
    """its arguments, laid over `env_kwargs`"""
    eval_problems: int = 0
    """held-out problems measured before and after training; 0: no measurement"""
    eval_samples: int = 8
    """completions per held-out problem"""
    eval_without_adapter: bool = False
    """measure the base model too, the adapter switched off, after training"""
    lora_rank: int = 0
    """rank of the LoRA adapter that is trained in place of the weights; 0: all weights are trained"""
    lora_alpha: int | None = None
    """the adapter's output is scaled by alpha / rank; None: 2 x `lora_rank`"""
    lora_dropout: float = 0.0
    """share of the adapter's inputs that is dropped in training"""
    lora_targets: list[str] | str = "all-linear"
    """names of the modules that get an adapter; ``"all-linear"``: every linear layer but the language-model head"""
    lora_rslora: bool = False
    """scale by alpha / sqrt(rank) (rsLoRA, arXiv 2312.03732)"""
    lora_dora: bool = False
    """train the magnitudes of the weights apart from their directions (DoRA, arXiv 2402.09353)"""
    quantization: str | None = None
    """``"4bit"``: the frozen weights are NF4 with double quantisation (QLoRA, arXiv 2305.14314), by bitsandbytes"""
    eval_every: int = 0
    """optimizer steps from one measurement to the next during training; the best model so far is kept in ``best/``. 0:
    none but before and after"""
    eval_temperature: float = Sampling.temperature
    """temperature of the measurement; the default is the paper's"""
    eval_top_p: float = Sampling.top_p
    """nucleus of the measurement; the default is the paper's"""
    eval_batch_tokens: int = BATCH_TOKENS
    """most tokens of a batch of the measurement, prompts and room for completions together: what bounds its memory"""
    overwrite: bool = False
    """replace a run that is already in `output_dir`"""

    def __post_init__(self):
        for name, least in (("eval_problems", 0), ("eval_every", 0), ("eval_batch_tokens", 1), ("record_rollouts", 0)):
            if getattr(self, name) < least:
                raise ConfigError(f"{name} is {getattr(self, name)}: it must be {least} or more.")
        Sampling(self.eval_temperature, self.eval_top_p).check(self.eval_samples, prefix="eval_")
        if self.eval_every and not self.eval_problems:
            raise ConfigError(
                f"eval_every is {self.eval_every} and eval_problems is 0: there is nothing to measure. Set "
                "eval_problems to the number of held-out problems."
            )
        wrapper_settings(self.env_wrappers)
        self._check_adapter()
        if self.eval_without_adapter and not (self.lora_rank and self.eval_problems):
            raise ConfigError(
                f"eval_without_adapter is on, lora_rank is {self.lora_rank} and eval_problems {self.eval_problems}: "
                "set both above 0, or switch it off."
            )

    def _check_adapter(self) -> None:
        if self.lora_rank < 0:
            raise ConfigError(f"lora_rank is {self.lora_rank}: it must be 0 (no adapter) or more.")
        if self.lora_alpha is not None and self.lora_alpha < 1:
            raise ConfigError(f"lora_alpha is {self.lora_alpha}: it must be 1 or more.")
        if not 0 <= self.lora_dropout < 1:
            raise ConfigError(f"lora_dropout is {self.lora_dropout}: it must lie in [0, 1).")
        if not self.lora_targets:
            raise ConfigError("lora_targets is empty: name the modules that get an adapter, or 'all-linear'.")
        if self.quantization not in (None, "4bit"):
            raise ConfigError(f"quantization is {self.quantization!r}: it must be '4bit' or null.")
        if self.quantization and not self.lora_rank:
            raise ConfigError(
                "quantization is '4bit' and lora_rank is 0: weights in 4 bits cannot be trained themselves. Set "
                "lora_rank (32, say) to train an adapter, or quantization to null."
            )


OWNERS: tuple[type, ...] = (RunConfig, DAPOConfig)
"""whose fields are the settings of a run"""


def load_settings(
    files: Sequence[str | Path],
    flags: Sequence[str] = (),
    *,
    make: Callable[..., DAPOConfig] = DAPOConfig,
    options: Sequence[str] = (),
) -> tuple[RunConfig, DAPOConfig, dict[str, Any]]:
    """Merge files left to right, then flags (``--field value`` or ``--field=value``).

    Args:
        make: makes the trainer's settings, for other devices than those at hand.
        options: of the command itself, which a misspelt flag may have meant.

    Returns:
        The run's settings, the trainer's, and what was asked for: the merged values, nothing filled in.

    Raises:
        ConfigError: a file that is missing or not a mapping, an unknown field (with the nearest known one), a value
            of the wrong type, a combination that cannot work.
    """
    values = {**read_files(files, OWNERS), **dict(read_flags(flags, OWNERS, options))}
    for name in ("model", "env"):
        if values.get(name) is None:
            raise ConfigError(
                f"{name} is not set: give it in a configuration file or as --{name} (a quick start: "
                "--config configs/quickstart.yaml)."
            )
    run = {name: value for name, value in values.items() if name in names_of(RunConfig)}
    rest = {name: value for name, value in values.items() if name not in run}
    try:
        return RunConfig(**run), make(**rest), values
    except ConfigError:
        raise
    except (ValueError, TypeError, OSError, ImportError) as error:
        raise ConfigError(one_line(error)) from error
