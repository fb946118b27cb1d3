"""``DAPOConfig``: TRL's ``GRPOConfig`` with DAPO's settings, all of them checked together at construction."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from typing import Any, ClassVar, cast

import torch
from torch.optim import SGD
from transformers import get_scheduler
from transformers.utils import is_torch_bf16_gpu_available
from transformers.utils.logging import log_levels
from trl import GRPOConfig

from envs.prompt_format import PromptFormat

from .errors import ConfigError, one_line
from .settings import Rule, check, check_value, setting

REFILL_SIGMAS = 3.0
"""Safety margin of a round, in standard deviations above the expected need, where the surplus is kept."""
LOSS_TYPES = ("dapo", "grpo", "dr_grpo", "bnpo", "cispo", "sapo", "luspo", "vespo")
MISMATCH_CORRECTIONS = (
    "none",
    "token_truncate",
    "token_mask",
    "sequence_truncate",
    "sequence_mask",
    "geometric_mask",
)
PAPER_CACHE_FRACTION = 0.2
"""Share of the length limit over which the paper's overlong penalty rises: 4,096 of 20,480 tokens (section 4.1)."""
LOG_LEVELS = (*log_levels, "passive")
SHARE = Rule(least=0, most=1)
INHERITED = {
    "adam_beta1": SHARE,
    "adam_beta2": SHARE,
    "adam_epsilon": Rule(least=0),
    "dataloader_num_workers": Rule(least=0),
    "ddp_timeout": Rule(least=1),
    "generation_batch_size": Rule(least=1),
    "gradient_accumulation_steps": Rule(least=1),
    "learning_rate": Rule(least=0),
    "log_level": Rule(choices=LOG_LEVELS),
    "log_level_replica": Rule(choices=LOG_LEVELS),
    "max_grad_norm": Rule(least=0),
    "min_p": SHARE,
    "multi_objective_aggregation": Rule(choices=("sum_then_normalize", "normalize_then_sum")),
    "neftune_noise_alpha": Rule(least=0),
    "num_iterations": Rule(least=1),
    "num_train_epochs": Rule(least=0),
    "per_device_eval_batch_size": Rule(least=1),
    "per_device_train_batch_size": Rule(least=1),
    "ref_model_mixup_alpha": SHARE,
    "ref_model_sync_steps": Rule(least=1),
    "repetition_penalty": Rule(above=0),
    "seed": Rule(least=0),
    "steps_per_generation": Rule(least=1),
    "sapo_temperature_neg": Rule(above=0),
    "sapo_temperature_pos": Rule(above=0),
    "temperature": Rule(above=0),
    "top_entropy_quantile": SHARE,
    "top_k": Rule(least=0),
    "top_p": Rule(above=0, most=1),
    "vllm_gpu_memory_utilization": Rule(above=0, most=1),
    "vllm_mode": Rule(choices=("server", "colocate")),
    "vllm_tensor_parallel_size": Rule(least=1),
    "warmup_steps": Rule(least=0),
    "weight_decay": Rule(least=0),
}
"""Settings of TRL and Transformers that are checked here too."""
GROUPS = {
    "algorithm": (
        "The objective: ratio, advantage, loss and KL penalty (docs/algorithm.md).",
        "num_generations epsilon epsilon_high beta scale_rewards turn_credit loss_type importance_sampling_level "
        "num_iterations delta reward_weights multi_objective_aggregation mask_truncated_completions "
        "top_entropy_quantile entropy_coef sync_ref_model ref_model_mixup_alpha ref_model_sync_steps",
    ),
    "task": ("", "system_prompt few_shot prompt_template"),
    "overlong": (
        "The penalty of long completions.",
        "overlong_shape overlong_max_length overlong_cache_length overlong_coefficient",
    ),
    "sampling": (
        "Which prompts are drawn and which groups are trained on: dynamic sampling (docs/sampling.md).",
        "group_filter filter_key min_valid_fraction max_refill_rounds on_refill_limit surplus_max_age "
        "max_round_sequences prompt_selection mix_column mix_weights on_long_prompt shuffle_dataset",
    ),
    "generation": (
        "How completions are drawn (docs/generation.md).",
        "max_completion_length temperature top_p top_k min_p repetition_penalty generation_backend generation_kwargs "
        "chat_template_kwargs max_tool_calling_iterations",
    ),
    "vllm": (
        "vLLM in place of transformers' generate (docs/generation.md).",
        "use_vllm mismatch_correction mismatch_check push_adapter vllm_mode vllm_gpu_memory_utilization "
        "vllm_enable_sleep_mode vllm_max_model_length vllm_tensor_parallel_size vllm_server_host vllm_server_port "
        "vllm_server_base_url vllm_server_timeout vllm_group_port vllm_model_impl vllm_importance_sampling_correction "
        "vllm_importance_sampling_mode vllm_importance_sampling_clip_min vllm_importance_sampling_clip_max",
    ),
    "batch": (
        "The sizes of a rollout batch and of an optimizer step: the sums stand in docs/configuration.md.",
        "per_device_train_batch_size gradient_accumulation_steps steps_per_generation generation_batch_size "
        "microbatch_tokens share_prompts",
    ),
    "optimizer": (
        "Length of the run, learning rate and optimizer.",
        "max_steps num_train_epochs learning_rate lr_scheduler_type lr_scheduler_kwargs warmup_steps optim optim_args "
        "weight_decay adam_beta1 adam_beta2 adam_epsilon max_grad_norm seed data_seed full_determinism",
    ),
    "hardware": (
        "Precision, memory and devices (docs/hardware.md).",
        "use_cpu bf16 fp16 tf32 cpu_precision gradient_checkpointing gradient_checkpointing_kwargs torch_compile "
        "ddp_find_unused_parameters ddp_timeout ds3_gather_for_generation deepspeed fsdp fsdp_config",
    ),
    "model": ("", "model_init_kwargs trust_remote_code disable_dropout cast_lm_head_to_fp32"),
    "output": (
        "",
        "output_dir resume_from_checkpoint save_strategy save_steps save_total_limit save_only_model logging_steps "
        "report_to run_name log_completions on_alarm",
    ),
    "hub": (
        "Pushing the model to the Hugging Face Hub while it is trained (docs/training.md).",
        "push_to_hub hub_model_id hub_strategy hub_private_repo hub_token hub_revision hub_always_push",
    ),
}
"""Groups in which `dapo-trl train --help` and the documentation show the settings: a sentence on each and its settings.
A group without a sentence is begun in run/settings.py."""


SYSTEM_PROMPT = (
    "Text of a system message before every prompt. A chat template that takes none refuses it: the text then belongs "
    "into `prompt_template`."
)
FEW_SHOT = (
    "Worked examples before every question, as earlier turns of the chat: a list of "
    "``{prompt: ..., completion: ...}`` or of messages, a jsonl or parquet file of such rows, or a number of the "
    "environment's own rows with their ``solution()``. Rows that are examples are never trained or measured on "
    "(docs/environments.md)."
)
PROMPT_TEMPLATE = (
    'Text around each question, the examples\' too, with ``{question}`` in its place: ``"{question}\\nBe brief."``.'
)


def check_prompt(settings: Any) -> None:
    """Refuse a prompt that cannot be put together, before anything is loaded.

    Args:
        settings: Has `system_prompt`, `few_shot` and `prompt_template`.

    Raises:
        ConfigError: The template has no placeholder, or the examples are none.
    """
    try:
        PromptFormat.of(settings.system_prompt, settings.few_shot, settings.prompt_template)
    except (ValueError, OSError) as error:
        raise ConfigError(f"{one_line(error)}.") from error


@dataclass
class DAPOConfig(GRPOConfig):
    """Settings of a `DAPOTrainer`. Without arguments: the textbook variant of DAPO.

    Everything of TRL's `GRPOConfig` is here under its own name; the fields below are new or have another default.
    Lengths are in tokens. A group is the ``num_generations`` completions of one prompt.

    Raises:
        ConfigError: a value has the wrong type or is out of range, or two settings contradict each other.
    """

    settings_for: ClassVar[int | None] = None
    """Processes that the batch settings were given for, where they were derived from a checkpoint; None: these."""

    # Fields that may be None in TRL and must have a value here.
    output_dir: str = setting("trainer_output", "Folder of the run.")
    num_generations: int = setting(
        8, "Completions of each prompt, the group size G. DAPO uses 8 to 16; more find the rare correct one.", least=2
    )
    max_completion_length: int = setting(512, "Longest completion, in tokens.", least=1)
    shuffle_dataset: bool = setting(True, "Walk through finite data in a new order each epoch.")

    # TRL's fields with DAPO's defaults.
    epsilon: float = setting(0.2, "How far the ratio may fall below 1 (epsilon_low, eq. 8).")
    epsilon_high: float | None = setting(
        0.28, "How far the ratio may rise above 1 (Clip-Higher, eq. 8). None: the same as epsilon.", least=0
    )
    beta: float = setting(0.01, "Weight of the KL penalty to the reference model. The paper uses none: 0.", least=0)
    scale_rewards: str = setting(
        "none",
        "Advantage R - mean ('none'), divided by the standard deviation of the group ('group', the paper) or of the "
        "batch ('batch'); with turn_credit 'to_go' that of all turns together.",
        choices=("none", "group", "batch"),
    )
    turn_credit: str = setting(
        "episode",
        "In an environment of many turns: 'episode' gives every token the advantage of the whole episode; 'to_go' "
        "gives the tokens of each turn the advantage of what is earned from that turn on, over the same turn of the "
        "group's other episodes (docs/algorithm.md). The two are the same for one turn.",
        choices=("episode", "to_go"),
    )
    loss_type: str = setting(
        "dapo",
        "'dapo': token-level loss, divided by the active tokens of the optimizer step. 'grpo': mean over completions "
        "of the mean over tokens. TRL's other losses are computed by TRL. 'my_module:MyLoss': your own.",
        choices=LOSS_TYPES,
        own=True,
    )
    importance_sampling_level: str = setting(
        "token",
        "'token': one ratio per token. 'sequence_product': one per completion, the product over its tokens. "
        "'sequence': TRL's geometric mean (GSPO), computed by TRL.",
        choices=("token", "sequence_product", "sequence"),
    )

    # The prompt.
    system_prompt: str | None = setting(None, SYSTEM_PROMPT)
    few_shot: int | str | list[Any] | None = setting(None, FEW_SHOT, least=0)
    prompt_template: str | None = setting(None, PROMPT_TEMPLATE)

    # Dynamic sampling.
    group_filter: str = setting(
        "zero_variance",
        "Which groups are dropped and replaced: 'zero_variance', groups whose scores are all equal; 'all_zero', groups "
        "whose scores are all 0 (the literal textbook rule); 'none' turns dynamic sampling off.",
        choices=("zero_variance", "all_zero", "none"),
    )
    filter_key: str = setting(
        "accuracy",
        "The score that the filter compares: 'accuracy', the environment's raw correctness, alone and together with "
        "the rewards of earlier turns (without an environment the same as 'reward'); 'reward', the weighted sum of "
        "rewards before the overlong penalty; or the name of a reward function. With turn_credit 'to_go' also what is "
        "earned from each turn on.",
    )
    min_valid_fraction: float = setting(
        0.5,
        "Prompts are drawn until this share of the rollout batch is informative, in (0, 1]. The paper: 1.",
    )
    max_refill_rounds: int = setting(8, "Limit on extra rounds of generation per rollout batch.", least=0)
    on_refill_limit: str = setting(
        "train",
        "At the limit: 'train' on the informative groups found so far (with none the update is skipped), or 'raise' an "
        "error.",
        choices=("train", "raise"),
    )
    generation_backend: str | None = setting(
        None, "A generation backend of your own, as 'module:Class' (docs/extending.md). None: transformers, or vLLM."
    )
    prompt_selection: str = setting(
        "uniform",
        "'uniform': every prompt in turn. 'predicted': prompts whose groups were all correct or all wrong before, and "
        "almost certainly are again, are skipped most of the time. 'my_module:MySelector': your own.",
        choices=("uniform", "predicted"),
        own=True,
    )
    mix_column: str | None = setting(
        None,
        "Column of train_dataset that names the task of each row: tasks are mixed in exact shares, each with its own "
        "prompt stream, difficulty memory, ledger and metrics (docs/mixtures.md). None: the data are one task.",
    )
    mix_weights: dict[str, float] | None = setting(
        None, "Weight of each task that mix_column names, above 0. None: in proportion to their rows."
    )
    on_long_prompt: str = setting(
        "skip",
        "A prompt that does not fit into the model's context together with max_completion_length: 'skip' leaves it out "
        "and prints a line, 'raise' refuses the data. Finite data are looked through before the first step.",
        choices=("skip", "raise"),
    )
    surplus_max_age: int | None = setting(
        None,
        "Informative groups beyond a full batch are kept for the next one if they are at most this many optimizer "
        "steps old by then; 0 drops them. None: the optimizer steps of one rollout batch.",
        least=0,
    )
    max_round_sequences: int | None = setting(
        None,
        "Limit on the completions of one round of generation, over all processes: the number that the hardware "
        "generates efficiently at once. None: a rollout batch; with vLLM, three.",
        least=1,
    )

    # vLLM.
    mismatch_correction: str | None = setting(
        None,
        "How a gradient is weighted where vLLM's probabilities differ from the trainer's (docs/generation.md): 'none', "
        "'token_truncate', 'token_mask', 'sequence_truncate', 'sequence_mask' or 'geometric_mask', within "
        "vllm_importance_sampling_clip_min and _max. None: as vllm_importance_sampling_mode and _correction say, and "
        "without them 'token_truncate', which keeps the gradient of completions of any length.",
        choices=MISMATCH_CORRECTIONS,
    )
    mismatch_check: bool = setting(
        True,
        "With vLLM: print how far its probabilities are from the trainer's, and end the run when pushed weights do not "
        "reach it.",
    )
    push_adapter: bool = setting(
        True,
        "With vLLM in the trainer's process: push the adapter alone, where vLLM can serve it. false: merge it into the "
        "model's weights and push these all, with which vLLM generates a little faster.",
    )
    vllm_importance_sampling_mode: str | None = setting(  # type: ignore[assignment]
        None, "TRL's name for mismatch_correction.", choices=MISMATCH_CORRECTIONS
    )

    # Batching.
    microbatch_tokens: int | str | None = setting(
        None,
        "Limit on the tokens that one forward and backward pass computes, padding and prompts included; a prompt that "
        "is shared counts once. 'auto' measures the GPU's memory. None: per_device_train_batch_size times the longest "
        "row of the batch, less what shared prompts save.",
        least=1,
        choices=("auto",),
    )

    share_prompts: str = setting(
        "auto",
        "'auto': completions of a group are computed together and what they begin with once, where the model allows it "
        "(docs/performance.md). 'off': every completion with its own prompt, as TRL computes it.",
        choices=("auto", "off"),
    )

    cpu_precision: str = setting(
        "float32",
        "On a CPU: 'auto' computes log-probabilities and updates in bfloat16 if the processor has instructions for it "
        "and a trial before the first of them is at least a tenth faster (docs/performance.md). The weights stay as "
        "they are, and generation too. Ignored on a GPU, and with bf16.",
        choices=("float32", "auto"),
    )

    # Overlong reward shaping.
    overlong_shape: str = setting(
        "linear",
        "'linear': coefficient x tokens past overlong_max_length; 'soft': 0 up to overlong_max_length - "
        "overlong_cache_length, falling to -1 at overlong_max_length (eq. 13); 'none'.",
        choices=("linear", "soft", "none"),
    )
    overlong_max_length: int | None = setting(
        None, "L_max in tokens. None: max_completion_length for 'soft', 80 % of it for 'linear'.", least=1
    )
    overlong_cache_length: int | None = setting(
        None, "L_cache in tokens, for 'soft'. None: 20 % of overlong_max_length, as in the paper.", least=0
    )
    overlong_coefficient: float = setting(
        0.01, "Penalty per token past overlong_max_length, for 'linear'; it is subtracted from the reward.", least=0
    )

    # While it runs.
    on_alarm: str = setting(
        "warn",
        "Response to an alarm (alarms.py: entropy collapse, length explosion, reward without accuracy, nothing "
        "informative, ratios far from 1, gradient lost, gradient spikes): 'warn' logs one line; 'checkpoint' also "
        "saves a checkpoint; 'stop' saves one and ends the run.",
        choices=("warn", "checkpoint", "stop"),
    )

    def __post_init__(self):
        if self.bf16 is None:  # TRL turns bf16 on regardless and then refuses to run on a CPU
            self.bf16 = not self.fp16 and not self.use_cpu and is_torch_bf16_gpu_available()
        if isinstance(self.scale_rewards, bool):  # as TRL reads it
            self.scale_rewards = "group" if self.scale_rewards else "none"
        check(self, INHERITED)
        check_prompt(self)
        given = self.generation_kwargs if isinstance(self.generation_kwargs, dict) else {}
        for name in INHERITED.keys() & given.keys():
            check_value(type(self), name, given[name], INHERITED[name], label="generation_kwargs: {}".format)
        self._check_batch()
        if self.logging_steps <= 0:
            raise ConfigError(f"logging_steps is {self.logging_steps:g}: it must be above 0 optimizer steps.")
        if self.bf16 and not self.use_cpu and not is_torch_bf16_gpu_available():
            raise ConfigError(
                "bf16 is true, and there is no GPU here that computes in it: on a CPU add configs/hardware/cpu.yaml to "
                "--config, on an older GPU set bf16 to false and fp16 to true."
            )
        super().__post_init__()
        self._resolve_sampling()
        self._resolve_mismatch()
        self._resolve_overlong()
        self._check()

    @property
    def groups_per_rollout(self) -> int:
        """Groups of one rollout batch, over all processes."""
        return cast(int, self.generation_batch_size) // self.num_generations

    @property
    def micro_batches_per_rollout(self) -> int:
        """Loader batches in one process's share of a rollout batch (TRL: ``steps_per_generation``)."""
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
        """Limit on the groups of one round of generation, over all processes."""
        return cast(int, self.max_round_sequences) // self.num_generations

    @property
    def refill_sigmas(self) -> float:
        """Safety margin of a round, in standard deviations above the expected need; 0 where the surplus is dropped."""
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
        """Whether dynamic sampling is on."""
        return self.group_filter != "none"

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

    def _resolve_mismatch(self) -> None:
        """Give `mismatch_correction` and TRL's two settings of the same thing one value."""
        asked = {
            "mismatch_correction": self.mismatch_correction,
            "vllm_importance_sampling_correction": None if self.vllm_importance_sampling_correction else "none",
            "vllm_importance_sampling_mode": self.vllm_importance_sampling_mode,
        }
        if not self.vllm_importance_sampling_correction:  # as in TRL, whatever its mode is
            del asked["vllm_importance_sampling_mode"]
        given = {name: mode for name, mode in asked.items() if mode is not None}
        if len(set(given.values())) > 1:
            theirs = next(name for name in given if name != "mismatch_correction")
            raise ConfigError(
                f"mismatch_correction is {self.mismatch_correction!r} and {theirs} {getattr(self, theirs)!r}: both "
                "name the correction for vLLM's probabilities. Leave one of them out."
            )
        mode = next(iter(given.values()), "token_truncate")
        self.mismatch_correction = self.vllm_importance_sampling_mode = mode
        self.vllm_importance_sampling_correction = mode != "none"

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
        if not 0 < self.min_valid_fraction <= 1:
            raise ConfigError(
                f"min_valid_fraction is {self.min_valid_fraction}: it must lie in (0, 1]. To train on every group, "
                "set group_filter to none."
            )
        if not 0 <= self.epsilon < 1:
            raise ConfigError(f"epsilon is {self.epsilon}: a ratio cannot fall below 0, so it must lie in [0, 1).")
        if self.mix_weights is not None and self.mix_column is None:
            raise ConfigError("mix_weights is set and mix_column is not: name the column whose tasks it weighs.")
        for task, weight in (self.mix_weights or {}).items():
            if not (weight > 0 and math.isfinite(weight)):
                raise ConfigError(f"mix_weights gives {task!r} the weight {weight}: it must be above 0.")
        self._check_turn_credit()
        self._check_schedule()
        if self.overlong_shape != "none":
            longest, cache = cast(int, self.overlong_max_length), cast(int, self.overlong_cache_length)
            if cache >= longest:
                raise ConfigError(
                    f"overlong_cache_length is {cache} and overlong_max_length {longest}: the cache must lie in [0, "
                    "overlong_max_length)."
                )

    def _check_turn_credit(self) -> None:
        """Refuse what has no advantage of its own for each token."""
        if self.turn_credit == "episode":
            return
        for name, needed, reason in (
            ("importance_sampling_level", "token", "one ratio for a whole completion takes one advantage"),
            ("multi_objective_aggregation", "sum_then_normalize", "rewards normalised one by one have no turns"),
        ):
            if getattr(self, name) != needed:
                raise ConfigError(
                    f"turn_credit is {self.turn_credit!r} and {name} {getattr(self, name)!r}: {reason}. Set {name} to "
                    f"{needed}, or turn_credit to episode."
                )

    def _check_schedule(self) -> None:
        """Make the schedule of the learning rate once: some need arguments of their own."""
        name, given = getattr(self.lr_scheduler_type, "value", self.lr_scheduler_type), self.lr_scheduler_kwargs
        assert not isinstance(given, str)  # transformers has read it
        try:
            optimizer = SGD([torch.zeros(1)], lr=self.learning_rate)
            schedule = get_scheduler(name, optimizer, 1, 3, scheduler_specific_kwargs=given)
            for step in range(3):
                for factor in getattr(schedule, "lr_lambdas", ()):
                    factor(step)
        except (TypeError, ValueError) as error:
            raise ConfigError(
                f"lr_scheduler_type is {name!r} and lr_scheduler_kwargs {given}: {one_line(error)}"
            ) from error
