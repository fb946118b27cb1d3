"""Settings of ``dapo-trl eval``: the files of a training run can be used, and flags have short names."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ..config import FEW_SHOT, PROMPT_TEMPLATE, SYSTEM_PROMPT, check_prompt
from ..errors import ConfigError
from ..rollout.environments import wrapper_settings
from ..rollout.mixture import EnvEntry, read_entries
from ..settings import Rule, check, find_model, long_flags, names_of, read_files, read_flags, setting
from .evaluator import BATCH_TOKENS, Sampling
from .loading import DTYPES
from .split import kept_apart_in

ALIASES = {
    "k": "eval_samples",
    "problems": "eval_problems",
    "temperature": "eval_temperature",
    "top_p": "eval_top_p",
    "batch_tokens": "eval_batch_tokens",
}
"""Short names on the command line; in a file ``temperature`` and ``top_p`` are settings of training."""
ENDLESS_PROBLEMS = 200
"""Problems measured of an endless environment, unless ``eval_problems`` is set."""
_ENVIRONMENT = ("env", "env_kwargs", "eval_env", "eval_env_kwargs")
_FLAGS_ALONE = ("output_dir", "overwrite", "vllm_tensor_parallel_size", "vllm_gpu_memory_utilization")
"""A file's are those of the training run."""

GROUPS = {
    "model": ("The model that is measured.", "model adapter dtype chat_template_kwargs use_cpu"),
    "engine": (
        "The engine that draws the completions (docs/evaluation.md).",
        "engine vllm_tensor_parallel_size vllm_gpu_memory_utilization",
    ),
    "task": (
        "The environments that set the problems and judge the answers.",
        "env env_kwargs env_wrappers eval_env eval_env_kwargs system_prompt few_shot prompt_template",
    ),
    "measurement": (
        "Problems, completions of each, and how they are drawn.",
        "eval_problems eval_samples eval_temperature eval_top_p max_completion_length seed eval_batch_tokens",
    ),
    "output": ("Folder of the results.", "output_dir overwrite"),
}
"""As `config.GROUPS`, for `dapo-trl eval --help`."""


@dataclass
class EvalConfig:
    """Settings of `dapo-trl eval`. The names are those of `RunConfig` and `DAPOConfig` where they have them too."""

    model: str | None = setting(
        None, "Folder or Hub name of the model, or the folder of a PEFT adapter that names its base model."
    )
    adapter: str | None = setting(None, "Folder of a PEFT adapter to put on the model.")
    env: Any = setting(
        None,
        "The environment, as a name or as one name with its arguments (``math/MATH-v0: {split: test}``). Several are "
        "given as a list, or by ``--env`` several times, which replaces all that files set of environments. The list "
        "of a training run's mixture is read as it is; weights do not matter.",
    )
    env_kwargs: dict[str, Any] = setting(
        factory=dict, doc="Arguments of every environment; the environment's own override them."
    )
    eval_env: Any = setting(None, "Environment to measure on in place of `env`.")
    eval_env_kwargs: dict[str, Any] = setting(factory=dict, doc="Arguments that override `env_kwargs`.")
    env_wrappers: list[Any] = setting(
        factory=list, doc="As in training; wrappers that only shape the reward are left out."
    )
    system_prompt: str | None = setting(None, SYSTEM_PROMPT)
    few_shot: int | str | list[Any] | None = setting(
        None,
        f"{FEW_SHOT} A number draws from the environment of training (`env` with `env_kwargs`) where `eval_env` or "
        "`eval_env_kwargs` names another one to measure, else from the default split of the one that is measured.",
        least=0,
    )
    prompt_template: str | None = setting(None, PROMPT_TEMPLATE)
    eval_problems: int = setting(
        0,
        "Problems of each environment, from its first row on; 0: all of them, or 200 of an endless one.",
        least=0,
    )
    eval_samples: int = setting(32, "Completions of each problem.")
    eval_temperature: float | None = setting(
        None,
        "Temperature of sampling; 0 takes the most probable token, and then one completion is enough. None: as in "
        "training, the ``temperature`` of the files, or 1.",
    )
    eval_top_p: float | None = setting(
        None, "Nucleus (top-p) of sampling. None: as in training, the ``top_p`` of the files, or 1."
    )
    eval_batch_tokens: int = setting(
        BATCH_TOKENS,
        "Token budget of a batch, prompts and room for completions together; it bounds the memory.",
        least=1,
    )
    max_completion_length: int = setting(Sampling.max_completion_length, "Longest completion, in tokens.")
    chat_template_kwargs: dict[str, Any] | None = setting(None, "Arguments of the chat template.")
    engine: str = setting(
        "transformers",
        "What draws the completions: transformers, or vllm, which is faster on a GPU and needs 'dapo-trl[vllm]'. "
        "Problems, seeds and figures are made alike; the completions are others.",
        choices=("transformers", "vllm"),
    )
    vllm_tensor_parallel_size: int = setting(1, "GPUs that share the weights, with vllm.", least=1)
    vllm_gpu_memory_utilization: float = setting(0.9, "Share of the GPU's memory that vllm takes.")
    seed: int = setting(Sampling.seed, "Seed that determines all samples.")
    dtype: str = setting(
        "auto",
        "Type of the weights: float32, bfloat16, float16, or auto, the one they were saved in.",
        choices=DTYPES,
    )
    use_cpu: bool = setting(False, "Ignore a GPU.")
    output_dir: str | None = setting(
        None, "Folder of the results; None: one in ``runs/eval`` named after model and environment."
    )
    overwrite: bool = setting(False, "Replace an evaluation that is already in `output_dir`.")
    kept_apart: dict[str, int] = field(default_factory=dict, init=False)
    """Problems that the run whose settings these are kept apart from training, so that they are measured, by the name
    of the environment; the first rows are measured of one that is not named."""

    def __post_init__(self):
        if self.model is None:
            raise ConfigError("model is not set: give a model's folder or its name on the Hub as --model.")
        if self.env is None and self.eval_env is None:
            raise ConfigError("env is not set: give it as --env (see dapo-trl envs list), or --config with a task.")
        check(self, {"vllm_gpu_memory_utilization": Rule(above=0, most=1)}, label=_short)
        check_prompt(self)
        self.sampling.check(self.eval_samples)
        wrapper_settings(self.env_wrappers)
        self.environments()

    @property
    def sampling(self) -> Sampling:
        """The settings of how completions are drawn."""
        return Sampling.like_training(self, Sampling(), self.max_completion_length, self.seed)

    @property
    def folder(self) -> Path:
        """Where the results go."""
        if self.output_dir is not None:
            return Path(self.output_dir)
        parts = [part for name in (self.model, self.adapter) if name for part in Path(name).parts]
        parts += [
            part for env in dict.fromkeys(name for name, _ in self.environments()) for part in re.split("[/:]", env)
        ]
        return Path("runs") / "eval" / "--".join(part for part in parts if part not in ("/", ".", ".."))

    def environments(self) -> list[tuple[str, dict[str, Any]]]:
        """The environments to measure on, as names and arguments.

        Raises:
            ConfigError: an item is neither a name nor one name with its arguments, or one comes twice.
        """
        entries = self._entries()
        found = [(entry.id, {**entry.kwargs, **entry.eval_kwargs}) for entry in entries]
        known = [(*one, entry.name, entry.wrappers) for one, entry in zip(found, entries, strict=True)]
        for place, one in enumerate(known):
            if one in known[:place]:
                raise ConfigError(f"env names {one[0]} twice with the same arguments: name it once.")
        return found

    def wrappers(self, place: int) -> Sequence[Any]:
        """The wrappers of an environment of `environments`."""
        return self._entries()[place].wrappers

    def kept_apart_of(self, place: int) -> int:
        """Problems that the run kept apart of an environment of `environments`; 0: its first rows are measured."""
        trained = self._trained(place)
        if trained is None or (trained.id, trained.kwargs) != self.environments()[place]:
            return 0
        return self.kept_apart.get(trained.name, 0)

    def _asked(self) -> list[Any]:
        return _as_list(self.eval_env if self.eval_env is not None else self.env)

    def _entries(self) -> list[EnvEntry]:
        """The environments to measure on; `eval_env` has all else of the one that a run trains on."""
        if isinstance(self.eval_env, str) and (trained := self._trained(0)) is not None:
            return [replace(trained, env=self.eval_env)]
        return [self._entry(item) for item in self._asked()]

    def _entry(self, item: Any) -> EnvEntry:
        if not isinstance(item, str) and not _is_entry(item):
            name, own = _name_and_arguments(item)
            item = {"id": name, "eval_kwargs": own}
        [entry] = read_entries(
            item, kwargs=self.env_kwargs, eval_kwargs=self.eval_env_kwargs, wrappers=self.env_wrappers
        )
        return entry

    def _trained(self, place: int) -> EnvEntry | None:
        """The environment of the training run that one of `environments` measures; None: no run names it so."""
        items, elsewhere = _as_list(self.env), self.env is not None and self.eval_env is not None
        if elsewhere and len(items) > 1:
            return None
        item = items[0] if elsewhere else self._asked()[place]
        return self._entry(item) if isinstance(item, str) or _is_entry(item) else None

    def source_of_examples(self, place: int, name: str, arguments: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        """The environment whose rows are the examples that `few_shot` asks for by their number, as in training.

        Args:
            place, name, arguments: The environment that is measured, and its place among `environments`.
        """
        trained = self._trained(place)
        elsewhere = (self.env is not None and self.eval_env is not None) or bool(self.eval_env_kwargs)
        if trained is not None and (elsewhere or self.kept_apart or _is_entry(self._asked()[place])):
            return trained.id, trained.kwargs
        return name, {key: value for key, value in arguments.items() if key != "split"}


def load_eval_settings(
    files: Sequence[str | Path], flags: Sequence[str] = (), *, training: tuple[type, ...]
) -> EvalConfig:
    """Merge files left to right, then flags; settings in files that only training has are ignored.

    Args:
        training: the dataclasses of a training run, whose settings the files may hold too.

    Raises:
        ConfigError: as `settings.load_settings`, and for a flag that only training has.
    """
    known, owners = names_of(EvalConfig), (EvalConfig, *training)
    asked = read_files(files, owners)
    values = {name: value for name, value in asked.items() if name in known and name not in _FLAGS_ALONE}
    for name in ("temperature", "top_p"):  # of the training run: the default of the measurement
        if values.get(f"eval_{name}") is None:
            values[f"eval_{name}"] = asked.get(name)
    given: dict[str, Any] = {}
    for name, value in read_flags(long_flags(flags, ALIASES), owners):
        if name not in known:
            raise ConfigError(f"--{name} is a setting of training: dapo-trl eval has no use for it.")
        if name == "env":
            value = [*given.get("env", []), *(value if isinstance(value, list) else [value])]
        given[name] = value
    if "env" in given:
        values = {name: value for name, value in values.items() if name not in _ENVIRONMENT}
    merged = {**values, **given}
    config = EvalConfig(**{**merged, "model": find_model(merged.get("model"))})
    if not given.keys() & set(_ENVIRONMENT):
        names = [entry.name for place in range(len(config._asked())) if (entry := config._trained(place)) is not None]
        kept = {name: max((kept_apart_in(Path(file).parent, name) for file in files), default=0) for name in names}
        config.kept_apart = {name: count for name, count in kept.items() if count}
    return config


def _as_list(asked: Any) -> list[Any]:
    return asked if isinstance(asked, list) else [asked]


def _is_entry(item: Any) -> bool:
    """Whether an environment is written as in the list of a training run."""
    return isinstance(item, dict) and "id" in item


def _short(name: str) -> str:
    return next((short for short, long in ALIASES.items() if long == name), name)


def _name_and_arguments(item: Any) -> tuple[str, dict[str, Any]]:
    name, arguments = next(iter(item.items())) if isinstance(item, dict) and len(item) == 1 else (None, None)
    if not isinstance(name, str) or not isinstance(arguments, dict):
        raise ConfigError(
            f"env is {item!r}: it must be the name of an environment, or one name with its arguments, as in "
            "--env 'math/MATH-v0: {split: test}'."
        )
    return name, {str(key): value for key, value in arguments.items()}
