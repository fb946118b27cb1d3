"""``DAPOConfig``: TRL's ``GRPOConfig`` with DAPO's settings, all of them checked together at construction."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any, cast

from transformers.utils import is_torch_bf16_gpu_available
from trl import GRPOConfig

from .errors import ConfigError

GROUP_FILTERS = ("zero_variance", "all_zero", "none")
REFILL_POLICIES = ("train", "raise")
PROMPT_SELECTIONS = ("uniform", "predicted")
ALARM_ACTIONS = ("warn", "checkpoint", "stop")
OVERLONG_SHAPES = ("linear", "soft", "none")
REFILL_SIGMAS = 3.0
"""With a bank for the surplus, a round asks for so many standard deviations, of chance and of prediction, more than is
expected to be enough."""
EXTENSIBLE = ("loss_type", "prompt_selection")
"""Settings that also take a class of the user's, as ``module:Class``; see docs/extending.md."""
LOSS_TYPES = ("dapo", "grpo", "dr_grpo", "bnpo", "cispo", "sapo", "luspo", "vespo")
PAPER_CACHE_FRACTION = 0.2
"""Share of the length limit over which the paper's overlong penalty rises: 4,096 of 20,480 tokens (section 4.1)."""


def _is_a(value: object, kind: Any) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)


def _setting(default, doc: str):
    return field(default=default, metadata={"help": doc})


@dataclass
class DAPOConfig(GRPOConfig):
    """Settings of a `DAPOTrainer`. Without arguments: the textbook variant of DAPO.

    Everything of TRL's `GRPOConfig` is here under its own name; the fields below are new or have another default.
    Lengths are in tokens. The group a setting speaks of is the ``num_generations`` completions of one prompt.
    """

    # Fields that TRL lets be None and DAPO does not.
    output_dir: str = _setting("trainer_output", "Folder of the run.")
    num_generations: int = _setting(8, "Completions per prompt: the group size G. DAPO uses 8 to 16.")
    max_completion_length: int = _setting(512, "Longest completion, in tokens.")
    shuffle_dataset: bool = _setting(True, "Walk through finite data in a new order each epoch.")

    # TRL's fields with DAPO's defaults.
    epsilon: float = _setting(0.2, "How far the ratio may fall below 1 (epsilon_low, eq. 8).")
    epsilon_high: float | None = _setting(
        0.28, "How far the ratio may rise above 1 (Clip-Higher, eq. 8). None: the same as epsilon."
    )
    beta: float = _setting(0.01, "Weight of the KL penalty to the reference model. The paper uses none: 0.")
    scale_rewards: str = _setting(
        "none",
        "Advantage R - mean ('none'), divided by the group's standard deviation ('group', the paper) or by that of "
        "the batch ('batch').",
    )
    loss_type: str = _setting(
        "dapo",
        "'dapo': token-level loss, divided by the active tokens of the optimizer step. 'grpo': mean over completions "
        "of the mean over tokens. TRL's other losses are computed by TRL.",
    )
    importance_sampling_level: str = _setting(
        "token",
        "'token': one ratio per token. 'sequence_product': one per completion, the product over its tokens. "
        "'sequence': TRL's geometric mean (GSPO), computed by TRL.",
    )

    # Dynamic sampling.
    group_filter: str = _setting(
        "zero_variance",
        "Which groups are dropped and replaced: 'zero_variance', those whose scores are all equal; 'all_zero', those "
        "whose scores are all 0 (the literal textbook rule); 'none' turns dynamic sampling off.",
    )
    filter_key: str = _setting(
        "accuracy",
        "The score the filter looks at: 'accuracy', the environment's raw correctness (without an environment the "
        "same as 'reward'); 'reward', the weighted sum of rewards before the overlong penalty; or the name of a "
        "reward function.",
    )
    min_valid_fraction: float = _setting(
        0.5,
        "Prompts are drawn until this share of the rollout batch is informative, in (0, 1]. The paper: 1.",
    )
    max_refill_rounds: int = _setting(8, "At most this many extra rounds of generation per rollout batch.")
    on_refill_limit: str = _setting(
        "train",
        "At the limit: 'train' on the informative groups there are (none: the update is skipped), or 'raise'.",
    )
    generation_backend: str | None = _setting(
        None, "A generation backend of your own, as 'module:Class' (docs/extending.md). None: transformers, or vLLM."
    )
    prompt_selection: str = _setting(
        "uniform",
        "'uniform': every prompt as it comes. 'predicted': prompts that are almost surely all right or all wrong by "
        "what is remembered of them are passed over most of the time.",
    )
    surplus_max_age: int | None = _setting(
        None,
        "Informative groups beyond a full batch are kept for the next one if they are at most this many optimizer "
        "steps old by then; 0 drops them. None: the optimizer steps of one rollout batch.",
    )
    max_round_sequences: int | None = _setting(
        None,
        "At most this many completions are generated in one round, over all processes: what the hardware generates "
        "efficiently at once. None: a rollout batch; with vLLM, three.",
    )

    # Batching.
    microbatch_tokens: int | str | None = _setting(
        None,
        "Tokens of one forward and backward pass, prompts included: rows of similar length are grouped so that rows x "
        "longest row stays within it. 'auto' measures on the GPU what fits. None: per_device_train_batch_size times "
        "the longest row at hand.",
    )

    # Overlong reward shaping.
    overlong_shape: str = _setting(
        "linear",
        "'linear': coefficient x tokens past overlong_max_length; 'soft': 0 up to overlong_max_length - "
        "overlong_cache_length, falling to -1 at overlong_max_length (eq. 13); 'none'.",
    )
    overlong_max_length: int | None = _setting(
        None, "L_max in tokens. None: max_completion_length for 'soft', 80 % of it for 'linear'."
    )
    overlong_cache_length: int | None = _setting(
        None, "L_cache in tokens, for 'soft'. None: 20 % of overlong_max_length, as in the paper."
    )
    overlong_coefficient: float = _setting(0.01, "Penalty per token past overlong_max_length, for 'linear'.")

    # While it runs.
    on_alarm: str = _setting(
        "warn",
        "What an alarm does (alarms.py: entropy collapse, length explosion, reward without accuracy, nothing "
        "informative, ratios far from 1, gradient spikes): 'warn' says so in one line; 'checkpoint' saves one besides; "
        "'stop' saves one and ends the run.",
    )

    def __post_init__(self):
        if self.bf16 is None:  # TRL turns bf16 on regardless and then refuses to run on a CPU
            self.bf16 = not self.fp16 and not self.use_cpu and is_torch_bf16_gpu_available()
        self._check_types()
        self._check_batch()
        if self.logging_steps <= 0:
            raise ConfigError(f"logging_steps is {self.logging_steps:g}: it must be above 0 optimizer steps.")
        super().__post_init__()
        self._resolve_sampling()
        self._resolve_overlong()
        self._check()

    @property
    def groups_per_rollout(self) -> int:
        """Groups of one rollout batch, over all processes."""
        return cast(int, self.generation_batch_size) // self.num_generations

    @property
    def micro_batches_per_rollout(self) -> int:
        """Micro-batches that one process cuts its share of a rollout batch into (TRL: ``steps_per_generation``)."""
        return cast(int, self.steps_per_generation)

    @property
    def updates_per_pass(self) -> int:
        """Optimizer steps in one pass over a rollout batch."""
        return self.micro_batches_per_rollout // self.gradient_accumulation_steps

    @property
    def updates_per_rollout(self) -> int:
        """Optimizer steps taken on one rollout batch, ``num_iterations`` passes over it."""
        return self.updates_per_pass * self.num_iterations

    @property
    def groups_per_round(self) -> int:
        """The most groups of one round of generation, over all processes."""
        return cast(int, self.max_round_sequences) // self.num_generations

    @property
    def refill_sigmas(self) -> float:
        """Standard deviations beyond the expected need that a round asks for: surplus costs little with a bank."""
        return REFILL_SIGMAS if self.surplus_max_age else 0.0

    @property
    def overlong(self) -> dict[str, Any]:
        """Arguments of `envs.overlong_penalty`; its shape may be "none" here."""
        return {
            "shape": self.overlong_shape,
            "max_length": self.overlong_max_length,
            "cache_length": self.overlong_cache_length,
            "coefficient": self.overlong_coefficient,
        }

    @property
    def filters_groups(self) -> bool:
        return self.group_filter != "none"

    def _check_types(self) -> None:
        tokens = self.microbatch_tokens
        if tokens not in (None, "auto") and not (_is_a(tokens, int) and cast(int, tokens) > 0):
            raise ConfigError(
                f"microbatch_tokens is {tokens!r} ({type(tokens).__name__}): it must be a whole number of tokens, 1 or "
                "more, or 'auto'."
            )
        for name in ("temperature", "epsilon", "epsilon_high", "beta", "min_valid_fraction", "overlong_coefficient"):
            value = getattr(self, name)
            if (value is None and name == "epsilon_high") or _is_a(value, int | float):
                continue
            raise ConfigError(f"{name} is {value!r} ({type(value).__name__}): it must be a number.")
        optional: tuple[str, ...] = ("overlong_max_length", "overlong_cache_length", "steps_per_generation")
        optional += ("generation_batch_size", "surplus_max_age", "max_round_sequences")
        least = {"max_refill_rounds": 0, "overlong_cache_length": 0, "num_generations": 2, "surplus_max_age": 0}
        for name in (
            "num_generations",
            "max_completion_length",
            "max_refill_rounds",
            "num_iterations",
            "per_device_train_batch_size",
            "gradient_accumulation_steps",
            *optional,
        ):
            value, low = getattr(self, name), least.get(name, 1)
            if value is None and name in optional:
                continue
            if not _is_a(value, int) or value < low:
                raise ConfigError(
                    f"{name} is {value!r} ({type(value).__name__}): it must be a whole number, {low} or more."
                )

    def _processes(self) -> int:
        return int(os.environ.get("WORLD_SIZE", 1))

    def _check_batch(self) -> None:
        """The arithmetic of the batch, with the sum shown (TRL's own messages name only its result)."""
        rows, steps = self.per_device_train_batch_size, self.steps_per_generation
        processes = self._processes()
        if self.generation_batch_size is not None:
            if steps is not None or self.generation_batch_size % (rows * processes):
                return  # TRL names these two mistakes well
            steps = self.generation_batch_size // (rows * processes)
        steps = steps or self.gradient_accumulation_steps
        total = rows * processes * steps
        if total % self.num_generations:
            raise ConfigError(
                f"per_device_train_batch_size {rows} x {processes} process(es) x steps_per_generation {steps} = "
                f"{total} completions per rollout batch, which is not a multiple of num_generations "
                f"{self.num_generations}: whole groups must fit. Change one of the four."
            )
        if steps % self.gradient_accumulation_steps:
            raise ConfigError(
                f"steps_per_generation is {steps} and gradient_accumulation_steps is "
                f"{self.gradient_accumulation_steps}: an optimizer step must lie within one rollout batch, so the "
                "first must be a multiple of the second. The number of updates per rollout batch is their quotient."
            )

    def _resolve_sampling(self) -> None:
        full = cast(int, self.generation_batch_size)
        if self.surplus_max_age is None:
            self.surplus_max_age = self.updates_per_rollout
        if self.max_round_sequences is None:
            self.max_round_sequences = 3 * full if self.use_vllm else full
        if self.max_round_sequences < full:
            raise ConfigError(
                f"max_round_sequences is {self.max_round_sequences}, less than the {full} completions of a rollout "
                "batch: the first round makes a full one. Raise it, or lower steps_per_generation."
            )

    def _resolve_overlong(self) -> None:
        if self.overlong_shape == "none":
            return
        if self.overlong_max_length is None:
            share = 1.0 if self.overlong_shape == "soft" else 1.0 - PAPER_CACHE_FRACTION
            self.overlong_max_length = max(int(self.max_completion_length * share), 1)
        if self.overlong_cache_length is None:
            soft = self.overlong_shape == "soft"
            self.overlong_cache_length = int(self.overlong_max_length * PAPER_CACHE_FRACTION) if soft else 0

    def _check(self) -> None:
        for name, allowed in (
            ("group_filter", GROUP_FILTERS),
            ("on_refill_limit", REFILL_POLICIES),
            ("prompt_selection", PROMPT_SELECTIONS),
            ("overlong_shape", OVERLONG_SHAPES),
            ("on_alarm", ALARM_ACTIONS),
            ("importance_sampling_level", ("token", "sequence_product", "sequence")),
            ("scale_rewards", ("none", "group", "batch")),
            ("loss_type", LOSS_TYPES),
            ("multi_objective_aggregation", ("sum_then_normalize", "normalize_then_sum")),
        ):
            value = getattr(self, name)
            if name in EXTENSIBLE and isinstance(value, str) and ":" in value:
                continue  # a user's own, imported when the trainer is made
            if value not in allowed:
                own = ", or your own as 'module:Class'" if name in EXTENSIBLE else ""
                raise ConfigError(f"{name} is {value!r}: it must be one of {', '.join(allowed)}{own}.")
        if not 0 < self.min_valid_fraction <= 1:
            raise ConfigError(
                f"min_valid_fraction is {self.min_valid_fraction}: it must lie in (0, 1]. To train on every group, "
                "set group_filter to none."
            )
        if self.learning_rate < 0:
            raise ConfigError(f"learning_rate is {self.learning_rate}: it must be 0 or more.")
        if self.temperature <= 0:
            raise ConfigError(f"temperature is {self.temperature}: completions are sampled, so it must be above 0.")
        if not 0 <= self.epsilon < 1:
            raise ConfigError(f"epsilon is {self.epsilon}: a ratio cannot fall below 0, so it must lie in [0, 1).")
        if self.epsilon_high is not None and self.epsilon_high < 0:
            raise ConfigError(f"epsilon_high is {self.epsilon_high}: it must be 0 or more.")
        if self.overlong_coefficient < 0:
            raise ConfigError(
                f"overlong_coefficient is {self.overlong_coefficient}: it is subtracted from the reward, so it must "
                "be 0 or more."
            )
        if self.overlong_shape != "none":
            longest, cache = cast(int, self.overlong_max_length), cast(int, self.overlong_cache_length)
            if cache >= longest:
                raise ConfigError(
                    f"overlong_cache_length is {cache} and overlong_max_length {longest}: the cache must lie in [0, "
                    "overlong_max_length)."
                )
