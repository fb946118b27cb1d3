"""Settings of a run: the model, the task and the measurement, beside those of the trainer."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ..checkpoint.batch_shape import BatchShape
from ..checkpoint.files import choose
from ..config import DAPOConfig
from ..errors import ConfigError, one_line
from ..evaluation import BATCH_TOKENS, Sampling
from ..evaluation.loading import is_adapter
from ..rollout.environments import wrapper_settings
from ..rollout.mixture import EnvEntry, check_entries, read_entries, share_of
from ..settings import check, find_model, names_of, read_files, read_flags, require, setting

GROUPS = {
    "model": (
        "The model, and the adapter that is trained in place of its weights.",
        "model lora_rank lora_alpha lora_targets lora_dropout lora_rslora lora_dora quantization",
    ),
    "task": ("The environment that sets the problems and judges the answers.", "env env_kwargs env_wrappers"),
    "measurement": (
        "Held-out accuracy before, during and after training.",
        "eval_problems eval_samples eval_every eval_env eval_env_kwargs eval_temperature eval_top_p eval_batch_tokens "
        "eval_without_adapter",
    ),
    "output": (
        "Folder, logs, checkpoints and how a run goes on (docs/training.md).",
        "overwrite allow_changes record_rollouts record_verdicts",
    ),
}
"""As `config.GROUPS`."""


@dataclass
class RunConfig:
    """Settings of `dapo-trl train` beside a `DAPOConfig`: the model, the task, and how accuracy is measured."""

    model: str | None = setting(
        None,
        "Folder or Hub name of the model to train. The folder of a saved adapter: that adapter is trained further, and "
        "the `lora_` settings have no effect.",
    )
    env: str | list[Any] | None = setting(
        None,
        "Id of the Gymnasium environment to train on. A list mixes several by weight (docs/mixtures.md): ``[{id: "
        "math/GSM8K-v0, weight: 3}, {id: math/Countdown-v0, kwargs: {levels: 3}}]``.",
    )
    env_kwargs: dict[str, Any] = setting(
        factory=dict, doc="Arguments of the environment; of every one of a list, whose own override them."
    )
    env_wrappers: list[Any] = setting(
        factory=list,
        doc="Wrappers of the environment, the first innermost, each a name or a name with its arguments: "
        "``[{RepetitionPenalty: {max_penalty: 0.5}}, {FormatReward: {form: think}}]``; your own is "
        "``your_module:YourWrapper``. Wrappers that only shape the reward are left out when accuracy is measured.",
    )
    record_verdicts: bool = setting(
        False,
        "Keep every completion with its verdict in ``verdicts-*.jsonl``, one file per process, for `dapo-trl envs "
        "replay` to judge again. The files take as much room as all the text that the model writes.",
    )
    record_rollouts: int = setting(
        8,
        "Completions of each rollout batch that are kept with their tokens, in ``rollouts-*.jsonl``, and shown in the "
        "report (64 MB in all, spread over the run); 0: none.",
        least=0,
    )
    eval_env: str | None = setting(None, "Environment to measure on; None: the one trained on.")
    eval_env_kwargs: dict[str, Any] = setting(factory=dict, doc="Its arguments, which override `env_kwargs`.")
    eval_problems: int = setting(
        0,
        "Held-out problems measured before and after training; 0: no measurement. They are the first rows of "
        "`eval_env`, or of `env` with `eval_env_kwargs`; without these two, rows of the training data, chosen by a "
        "hash of their text. A problem that is measured is never trained on.",
        least=0,
    )
    eval_samples: int = setting(8, "Completions per held-out problem.")
    eval_without_adapter: bool = setting(
        False, "After training, measure the base model too, with the adapter switched off."
    )
    lora_rank: int = setting(
        0, "Rank of the LoRA adapter that is trained in place of the weights; 0: all weights are trained.", least=0
    )
    lora_alpha: int | None = setting(
        None, "The adapter's output is scaled by alpha / rank; None: 2 x `lora_rank`.", least=1
    )
    lora_dropout: float = setting(0.0, "Share of the adapter's inputs that is dropped in training.")
    lora_targets: list[str] | str = setting(
        "all-linear",
        'Names of the modules that get an adapter; ``"all-linear"``: every linear layer except the language-model '
        "head.",
    )
    lora_rslora: bool = setting(False, "Scale by alpha / sqrt(rank) (rsLoRA, arXiv 2312.03732).")
    lora_dora: bool = setting(
        False, "Train the magnitudes of the weights apart from their directions (DoRA, arXiv 2402.09353)."
    )
    quantization: str | None = setting(
        None,
        '``"4bit"``: the frozen weights are NF4 with double quantisation (QLoRA, arXiv 2305.14314), by bitsandbytes.',
        choices=("4bit",),
    )
    eval_every: int = setting(
        0,
        "Optimizer steps from one measurement to the next during training; the best model so far is kept in "
        "``best/``. 0: measure only before and after.",
        least=0,
    )
    eval_temperature: float | None = setting(
        None, "Temperature of the measurement; None: as in training (``temperature``)."
    )
    eval_top_p: float | None = setting(None, "Nucleus (top-p) of the measurement; None: as in training (``top_p``).")
    eval_batch_tokens: int = setting(
        BATCH_TOKENS,
        "Token budget of a batch of the measurement, prompts and room for completions together; it bounds the memory.",
        least=1,
    )
    overwrite: bool = setting(False, "Replace a run that is already in `output_dir`.")
    allow_changes: bool = setting(
        False,
        "Resume although model, adapter, environment, group filter or loss are not those of the checkpoint. Other "
        "settings may change anyway; the changes are printed.",
    )

    def __post_init__(self):
        check(self)
        Sampling.like_training(self, Sampling(), 1, 0).check(self.eval_samples, prefix="eval_")
        if self.eval_every and not self.eval_problems:
            raise ConfigError(
                f"eval_every is {self.eval_every} and eval_problems is 0: there is nothing to measure. Set "
                "eval_problems to the number of held-out problems."
            )
        wrapper_settings(self.env_wrappers)
        entries = self.entries()
        if self.eval_env is not None and len(entries) > 1:
            raise ConfigError(
                f"eval_env is {self.eval_env!r} and env names {len(entries)} environments: each is measured by itself. "
                "Give those that are measured on other rows eval_kwargs, as in {id: ..., eval_kwargs: {split: test}}."
            )
        self._check_adapter()
        adapted = self.lora_rank > 0 or is_adapter(self.model)
        if self.eval_without_adapter and not (adapted and self.eval_problems):
            raise ConfigError(
                f"eval_without_adapter is on, lora_rank is {self.lora_rank} and eval_problems {self.eval_problems}: "
                "set both above 0, or switch it off."
            )

    def entries(self) -> list[EnvEntry]:
        """The environments to train on, with the arguments and wrappers of all; empty without one.

        Raises:
            ConfigError: as `read_entries`.
        """
        if self.env is None:
            return []
        return read_entries(
            self.env, kwargs=self.env_kwargs, eval_kwargs=self.eval_env_kwargs, wrappers=self.env_wrappers
        )

    @property
    def env_text(self) -> str:
        """The environments as text: the id of one, or the names of several with their ids and shares."""
        entries = self.entries()
        if len(entries) == 1:
            return entries[0].id
        return ", ".join(f"{entry.name} ({entry.id}, {share_of(entry, entries):.0%})" for entry in entries)

    def _check_adapter(self) -> None:
        if not 0 <= self.lora_dropout < 1:
            raise ConfigError(f"lora_dropout is {self.lora_dropout}: it must lie in [0, 1).")
        if not self.lora_targets:
            raise ConfigError("lora_targets is empty: name the modules that get an adapter, or 'all-linear'.")
        if self.quantization and not (self.lora_rank or is_adapter(self.model)):
            raise ConfigError(
                "quantization is '4bit' and lora_rank is 0: weights in 4 bits cannot be trained themselves. Set "
                "lora_rank (32, say) to train an adapter, or quantization to null."
            )


OWNERS: tuple[type, ...] = (RunConfig, DAPOConfig)
"""The dataclasses whose fields are the settings of a run."""


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
    require(values, "model", "env")
    run = {name: value for name, value in values.items() if name in names_of(RunConfig)}
    run["model"] = find_model(run["model"])
    rest = {name: value for name, value in values.items() if name not in run}
    _check_deepspeed(rest.get("deepspeed"))
    try:
        derived, settings_for = _for_these_processes(rest)
        made = RunConfig(**run), make(**rest | derived), values
    except ConfigError:
        raise
    except (ValueError, TypeError, OSError, ImportError) as error:
        raise ConfigError(one_line(error)) from error
    check_entries(made[0].entries(), made[1])
    if settings_for is not None:
        made[1].settings_for = settings_for  # type: ignore[misc]
    if made[1].eval_on_start:
        raise ConfigError(
            "eval_on_start is on: it is for an eval_dataset in Python. Set eval_problems to measure before and after "
            "training, and eval_every in between."
        )
    return made


def _for_these_processes(values: Mapping[str, Any]) -> tuple[dict[str, Any], int | None]:
    """The batch settings by which a run goes on though they were given for more or fewer processes, and for how many;
    nothing and None where they fit as they are."""
    wanted = values.get("resume_from_checkpoint")
    if wanted is None or str(wanted).lower() in ("none", "no", "false"):
        return {}, None
    try:
        written = BatchShape.written(choose(wanted, values.get("output_dir") or DAPOConfig.output_dir)[0])
    except ConfigError:  # reported with the folder, once the settings are known to be good
        return {}, None
    processes = int(os.environ.get("WORLD_SIZE", 1))
    rows = values.get("per_device_train_batch_size", DAPOConfig.per_device_train_batch_size)
    if written is None or written.settings_for == processes or not isinstance(rows, int) or rows < 1:
        return {}, None
    return written.settings(processes, rows), written.settings_for


def _check_deepspeed(asked: Any) -> None:
    """Refuse a configuration of DeepSpeed that is not there, or that nothing can use."""
    if isinstance(asked, str) and not Path(asked).is_file():
        raise ConfigError(f"deepspeed is {asked!r}: there is no such file (looked from {Path.cwd()}).")
    if asked and find_spec("deepspeed") is None:
        raise ConfigError("deepspeed is set, and DeepSpeed is not installed: pip install 'dapo-trl[deepspeed]'.")
