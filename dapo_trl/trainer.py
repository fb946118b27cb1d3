"""``DAPOTrainer``: TRL's ``GRPOTrainer`` with DAPO's loss and batching. Read this file first; it is wiring.

One rollout batch, and the optimizer steps on it::

    1 prompts       PromptSelector draws rows of the PromptStream             prompts/selector.py
    2 generation    a GenerationBackend samples turns; episodes are judged    generation/, rollout/episode_runner.py
    3 filter        groups without a signal are dropped; back to 1 until      sampling/collector.py: _round
                    the batch is full
    4 scoring       TRL computes old and reference log-probabilities          _score_rollouts
    5 schedule      groups are dealt to optimizer steps and processes         update/schedule.py
    6 microbatches  a step is cut into microbatches of bounded tokens         update/microbatches.py
    7 loss          algorithm.py on each; normalised over the whole step      update/loss.py, _compute_loss
    8 update        nothing non-finite reaches the weights                    _get_grad_norm

`training_step` is the clock: it runs 1 to 5 when a rollout batch begins, and 6 to 8 at each optimizer step.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import gymnasium
import numpy as np
import torch
from datasets import Dataset, IterableDataset
from peft import PeftConfig, PeftModel
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import PreTrainedModel, PreTrainedTokenizerBase, ProcessorMixin, TrainerCallback
from trl import GRPOTrainer

from envs import TaskEnv

from .algorithm import informative_groups
from .checkpoint.resumable_trainer import ResumableTrainer
from .checks import (
    NO_VISION,
    cautions_at_start,
    check_context,
    check_kernels,
    check_request,
    check_tokenizer,
    check_trainable,
    context_length,
)
from .config import DAPOConfig
from .distributed import load_on_every_process, mark_sharded, set_timeout
from .errors import ConfigError
from .generation.params import FinishedFn, GenerationBackend, SamplingParams, Turns, own_backend
from .generation.seeded import TRAINING, RandomNumbers
from .generation.transformers import TransformersBackend, own_loop
from .generation.vllm import VLLMBackend
from .monitor.callbacks import NothingLearnt, SoundAlarms
from .monitor.trackers import grouped_names
from .prompts.stream import PromptStream, StreamedPrompts, parts_of, prompt_stream
from .prompts.usable import PromptCheck, check_columns, usable_prompts
from .rollout.chat_format import ChatFormat, template_errors
from .rollout.dataset_prompts import as_asked, example_tokens, prompt_form, prompted_rows, refuse_examples
from .rollout.environments import EnvironmentRows, has_overlong_penalty, may_reply
from .rollout.episode_runner import EnvironmentSource
from .rollout.mixture import check_entries, read_entries
from .rollout.prompting import prompted
from .rollout.rewards import OverlongReward, RewardColumns, Scorer, checked
from .rollout.trl_bridge import EnvironmentReward, clock_rows
from .rollout.types import Rollout, TrainingRow
from .sampling.collector import Observers, RolloutCollector
from .sampling.sources import Source
from .sampling.state import SamplingState
from .trl_internals import TRL, Engine, Generated, KnownRollouts, SamplingNow, head_on_cpu
from .update import mismatch
from .update.batching import Microbatch, training_rows
from .update.gradient_ledger import GradientLedger
from .update.loss import make_loss
from .update.microbatches import MicrobatchRunner, OptimizerStep, stop_at_non_finite
from .update.mismatch_check import MismatchCheck
from .update.schedule import LocalSteps, Scheduler
from .update.token_means import TokenMeans

RewardFunc = str | PreTrainedModel | Callable[..., list[float | None]]
"""A reward function as TRL takes it: a callable, or a reward model by name or instance."""


class DAPOTrainer(ResumableTrainer):
    """Trains a causal language model with DAPO (arXiv 2503.14476).

    Takes everything `trl.GRPOTrainer` takes and, instead of ``train_dataset``, an environment. With
    ``group_filter="none"`` and ``overlong_shape="none"`` it computes the same as `GRPOTrainer`,
    with vLLM also ``mismatch_correction="sequence_mask"``.

    Args:
        model: Name, folder or instance of a causal language model; a `PeftModel` trains its adapter.
        reward_funcs: Reward functions or models; with an environment they are added to its reward, named
            ``environment`` (``reward_weights`` then begin with the environment's).
        args: Settings; without them the textbook defaults.
        train_dataset: Rows with a ``prompt``; other columns go to the reward functions. Not with ``env``.
        eval_dataset: Rows to evaluate on, as in TRL. Not with ``env``.
        processing_class: The tokenizer; by default the model's own.
        reward_processing_classes: Tokenizers of reward models.
        callbacks: Callbacks of transformers.
        optimizers: Optimizer and scheduler of your own.
        quantization_config: Loads the model quantized.
        peft_config: Trains an adapter of this kind.
        tools: TRL's tools.
        rollout_func: TRL's hook for generating completions.
        environment_factory: TRL's environments.
        env: Id of a registered Gymnasium environment (``"math/Arithmetic-v0"``, ``"my_pkg:my/Task-v0"``) or an
            instance. It supplies prompts and the reward. Several are mixed, as a list of these or of mappings with an
            ``id`` and a ``weight`` (docs/mixtures.md).

    Raises:
        ConfigError: Settings, data and environment do not fit together.
    """

    _tag_names = ["trl", "dapo"]  # noqa: RUF012  (as in TRL)
    _name = "DAPO"
    _paper = {  # noqa: RUF012
        "title": "DAPO: An Open-Source LLM Reinforcement Learning System at Scale",
        "id": "2503.14476",
    }
    args: DAPOConfig
    model: PreTrainedModel
    max_completion_length: int
    num_generations: int
    known: KnownRollouts | None = None
    """Set within `TRL.answering` alone."""
    sampling_now: SamplingNow | None = None
    """Set within `TRL.sample` alone: which completion of the run each row is."""

    def __init__(
        self,
        model: str | PreTrainedModel | PeftModel,
        reward_funcs: RewardFunc | list[RewardFunc] | None = None,
        args: DAPOConfig | None = None,
        train_dataset: Dataset | IterableDataset | None = None,
        eval_dataset: Dataset | IterableDataset | dict[str, Dataset | IterableDataset] | None = None,
        processing_class: PreTrainedTokenizerBase | None = None,
        reward_processing_classes: Any = None,
        callbacks: list[TrainerCallback] | None = None,
        optimizers: tuple[torch.optim.Optimizer | None, torch.optim.lr_scheduler.LambdaLR | None] = (None, None),
        quantization_config: Any = None,
        peft_config: PeftConfig | None = None,
        tools: list[Callable[..., Any]] | None = None,
        rollout_func: Callable[..., dict[str, Any]] | None = None,
        environment_factory: Any = None,
        *,
        env: str | gymnasium.Env | Sequence[Any] | None = None,
    ):
        args = DAPOConfig() if args is None else args
        if isinstance(processing_class, ProcessorMixin):
            raise ConfigError(NO_VISION)
        rewarded = not (env is None and reward_funcs is None and environment_factory is None)
        check_request(args, has_rewards=rewarded)
        check_trainable(model, optimizers[0], new_adapter=peft_config is not None)
        load_on_every_process(args.beta > 0)  # for the reference model
        self._make_envs(env, args)
        if environment_factory is None:  # TRL's environments bring prompts of their own
            check_columns({"train_dataset": train_dataset, "eval_dataset": eval_dataset})
        if self.envs:
            train_dataset = clock_rows(self.envs, args, train_dataset, eval_dataset)
        with Engine.make(args):
            super().__init__(
                model=model,
                reward_funcs=self._reward_functions(reward_funcs),
                args=args,
                train_dataset=train_dataset,
                eval_dataset=eval_dataset,
                processing_class=processing_class,
                reward_processing_classes=self._reward_tokenizers(reward_processing_classes),
                callbacks=callbacks,
                optimizers=optimizers,
                quantization_config=quantization_config,
                peft_config=peft_config,
                tools=tools,
                rollout_func=rollout_func,
                environment_factory=environment_factory,
            )
        self._wire()

    # Construction

    def _make_envs(self, env: Any, args: DAPOConfig) -> None:
        self._entries = [] if env is None else read_entries(env)
        check_entries(self._entries, args)
        self.envs = {entry.name: prompted(entry.make(), args) for entry in self._entries}
        """The environments by name; empty without one."""
        self._form = None if self.envs else prompt_form(None, args)
        """How the prompts of the data set are put together; None: as they are, or there is none."""
        self._environment_reward = EnvironmentReward(self.envs) if self.envs else None

    def _reward_functions(self, given: Any) -> list[Any]:
        functions = list(given) if isinstance(given, list | tuple) else [given]
        functions = [checked(function) for function in functions if function is not None]
        return functions if self._environment_reward is None else [self._environment_reward, *functions]

    def _reward_tokenizers(self, given: Any) -> Any:
        """None for the environment's reward, before those of reward models."""
        return [None, *given] if self.envs and isinstance(given, list) else given

    def _wire(self) -> None:
        """Put the parts together, once TRL has the model, the tokenizer and the processes."""
        if self._is_vlm:
            raise ConfigError(NO_VISION)
        args, accelerator = self.args, self.accelerator
        check_kernels(args)
        check_tokenizer(self._tokenizer, self.eos_token_ids, embeddings=self._embeddings)
        set_timeout(args.ddp_timeout_delta)
        mark_sharded(self.model, accelerator)
        self.trl, self.observers = TRL(self), Observers()
        if self.use_vllm:  # whatever the correction, TRL computes both log-probabilities and logs their ratio by token
            self.vllm_importance_sampling_correction, self.vllm_importance_sampling_mode = True, "token_truncate"
        stop_ids = frozenset([*self.eos_token_ids, self._tokenizer.pad_token_id])
        template = {"chat_template": self.chat_template} if self.chat_template else {}
        self.chat_format = ChatFormat(self._tokenizer, stop_ids, template | dict(self.chat_template_kwargs))  # type: ignore[arg-type]
        forms = {name: prompt_form(env, args) for name, env in self.envs.items()} or {"": self._form}
        self._examples = {name: example_tokens(form, self.chat_format) if form else 0 for name, form in forms.items()}
        """Tokens of the few-shot examples in each prompt, by environment."""
        self.backend = self._make_backend()
        self.columns = self._reward_columns()
        self.sampling = SamplingState(self._sources(), args)
        self._collector = self._make_collector()
        self._wire_update()
        for sentence in [*cautions_at_start(self.model, args), *self._push_note(), *self._turns_note()]:
            self.warn(sentence)
        self.alarms = SoundAlarms(args, accelerator)
        for callback in (NothingLearnt(args.updates_per_rollout), self.alarms):
            self.add_callback(callback)

    def _push_note(self) -> list[str]:
        """A warning that the adapter cannot be pushed to vLLM by itself."""
        reason = (
            cast(Engine, self.vllm_generation).merged_because
            if self.use_vllm and isinstance(self.model, PeftModel)
            else None
        )
        if reason is None or not self.args.push_adapter:
            return []
        return [f"vLLM cannot serve the adapter by itself ({reason}): it is pushed the whole model, merged."]

    def _turns_note(self) -> list[str]:
        """A warning that there are no turns to tell apart."""
        if self.args.turn_credit == "episode" or any(map(may_reply, self.envs.values())):
            return []
        return [
            "turn_credit is inert: no environment replies, and for episodes of one turn to_go is the same as episode."
        ]

    def _wire_update(self) -> None:
        """The parts that turn a rollout batch into optimizer steps."""
        args, accelerator = self.args, self.accelerator
        self.microbatches = MicrobatchRunner(
            args,
            accelerator,
            self.model,
            pad_token_id=self._tokenizer.pad_token_id,
            backward=lambda model, batch: self.backward(model, batch),
            undo_metrics=self._undo_metrics,
            warn=self.warn,
            head=contextlib.nullcontext if args.share_prompts == "off" else head_on_cpu,
        )
        self._scheduler = Scheduler(
            accelerator,
            group_size=self.num_generations,
            steps=args.updates_per_pass,
            score=self._score_rollouts,
            advantages=self.advantages_of,
            permute=self._permutation,
            put_surplus=self.sampling.put_surplus,
            whole_groups=args.filters_groups,
        )
        self._steps: list[OptimizerStep | None] = []
        self._last_step: OptimizerStep | None = None
        self._last_loss = torch.zeros(())
        self._token_means = TokenMeans()
        self._mismatch_check = MismatchCheck(
            args,
            accelerator,
            score=self.trl.score,
            say=self.warn,
            trained="adapter" if isinstance(self.model, PeftModel) else "weights",
        )
        self._gradient = GradientLedger(long=args.max_completion_length // 2, corrects=self.use_vllm)
        self.loss = make_loss(args, has_auxiliary_loss=self.aux_loss_enabled)

    def _reward_columns(self) -> RewardColumns:
        """The columns of the reward functions; the overlong penalty of the settings is added as the last."""
        args, task = self.args, len(self.reward_funcs)
        if args.overlong_shape != "none":
            own = [name for name, env in self.envs.items() if has_overlong_penalty(env)]
            if own:
                which = "the environment has" if len(self.envs) == 1 else f"{', '.join(own)}: they have"
                self.warn(f"{which} an OverlongPenalty of its own: overlong_shape is not added to it.")
            if not self.envs or len(own) < len(self.envs):
                penalty = OverlongReward(exempt=own, **args.overlong)
                self.reward_funcs.append(penalty)  # type: ignore[arg-type]
                self.reward_func_names.append(penalty.__name__)
                self.reward_processing_classes.append(None)  # type: ignore[arg-type]
                self.reward_weights = torch.cat([self.reward_weights, torch.ones(1)])
        columns = RewardColumns(self.reward_func_names, self.reward_weights, task)
        if args.filters_groups:
            columns.check_key(args.filter_key)
        return columns

    def _sources(self) -> list[Source]:
        """The environments as sources of prompts, or the parts of the data set."""
        args, seed, sources = self.args, self.args.seed, list[Source]()
        if not self.envs:
            refuse_examples(self.eval_dataset, self._form)
            for part in parts_of(self.train_dataset, args.mix_column, args.mix_weights):
                rows = prompted_rows(part.rows, self._form, self._tokenizer)
                stream = prompt_stream(rows, seed=seed, shuffle=args.shuffle_dataset)
                self._check_prompts(stream, part.name)
                sources.append(Source(stream, args, name=part.name, weight=part.weight))
        for entry in self._entries:
            rows = EnvironmentRows(self.envs[entry.name], self._tokenizer, entry.name)
            shuffle = args.shuffle_dataset and rows.size is not None
            stream = PromptStream(rows, size=rows.size, seed=seed, shuffle=shuffle)
            quick = isinstance(rows.env.unwrapped, TaskEnv)  # a foreign reset may take its time
            self._check_prompts(stream, entry.name, finite=quick)
            rule = entry.group_filter
            sources.append(Source(stream, args, name=entry.name, weight=entry.weight, group_filter=rule))
        return sources

    @property
    def limits(self) -> dict[str, int]:
        """Longest completion of each environment, in tokens."""
        return {entry.name: entry.max_completion_length or self.max_completion_length for entry in self._entries}

    def _check_prompts(self, stream: PromptStream | StreamedPrompts, name: str, *, finite: bool = True) -> None:
        """Let a stream pass over prompts that are too long, or refuse them; TRL looks itself where it has tools."""
        if self.rollout_func is not None or self.tools or self.environment_factories is not None:
            return
        check = PromptCheck(
            lambda prompt: GRPOTrainer._tokenize_prompts(self, [prompt])[0][0],
            completion=self.max_completion_length,
            context=context_length(self.model.config),
            vocabulary=len(self._tokenizer),
            embeddings=self._embeddings,
            examples=self._examples.get(name, max(self._examples.values())),
        )
        warn = functools.partial(self._warn_of, name)
        usable_prompts(stream, check, skip=self.args.on_long_prompt == "skip", finite=finite, warn=warn)

    def _warn_of(self, name: str, line: str) -> None:
        """Print a line, with the name that it is about where there are several environments or tasks."""
        several = len(self._entries) > 1 or self.args.mix_column is not None
        self.warn(f"{name}: {line}" if several else line)

    @property
    def _embeddings(self) -> int:
        """Tokens that the model has embeddings for."""
        return getattr(self.model.get_input_embeddings(), "num_embeddings", len(self._tokenizer))

    def _make_backend(self) -> GenerationBackend:
        def sample(contexts: list[list[int]], group_size: int) -> Turns:
            return Turns(*super(DAPOTrainer, self)._generate_single_turn(contexts, None, {}, group_size))

        def model() -> Any:
            return self.accelerator.unwrap_model(self.model_wrapped)

        if self.args.generation_backend is not None:
            params = SamplingParams.of(self.args, sorted(self.chat_format.stop_ids))
            return own_backend(self.args.generation_backend, model(), self._tokenizer, params)
        if self.use_vllm:
            return VLLMBackend(sample, self.vllm_generation, self.trl.engine_awake, sorted(self.chat_format.stop_ids))
        return TransformersBackend(sample, model, self.generation_config)

    def _make_collector(self) -> RolloutCollector:
        judge, sample = None, self.trl.sample
        if self._environment_reward is not None:
            self._environment_reward.chat_format = self.chat_format
            judge = self._environment_reward.judge
            if self.rollout_func is None and not self.tools:
                sample = EnvironmentSource(
                    self.envs,
                    self.limits,
                    self.chat_format,
                    tokenize=self.trl.tokenize,
                    generate=self.generate_turn,
                    accelerator=self.accelerator,
                    equal_counts=self.use_vllm,
                    count_tokens=self.trl.count_tokens,
                    on_activity=lambda activity: self.observers.on_activity(activity),
                ).sample
        return RolloutCollector(
            self.args,
            self.accelerator,
            sample=sample,
            scorer=Scorer(self.columns, self.trl.rewards, judge),
            state=self.sampling,
            run=self.trl,
            session=self.backend.session,
            decode=lambda ids: self._tokenizer.decode(ids, skip_special_tokens=True),
            observers=self.observers,
        )

    @property
    def on_activity(self) -> Callable[[str], None]:
        """Called with what goes on within a step, for a progress bar."""
        return self.observers.on_activity

    @on_activity.setter
    def on_activity(self, listener: Callable[[str], None]) -> None:
        self.observers.on_activity = listener

    @property
    def recorder(self) -> Any:
        """Keeps some rollouts to be read (`monitor.rollout_recorder.RolloutRecorder`); None: none."""
        return self.observers.recorder

    @recorder.setter
    def recorder(self, recorder: Any) -> None:
        self.observers.recorder = recorder

    # Rewards

    def _calculate_rewards(self, inputs, prompts, completions, completion_ids_list):
        if self.known is not None:
            return self.known.rewards
        rewards = super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)
        # A completion that its task could not score has no reward at all, whatever its length.
        decisive = rewards[:, :1] if self.envs else rewards[:, : self.columns.task]
        rewards[decisive.isnan().all(dim=1)] = torch.nan
        return rewards

    def advantages_of(self, rewards: Tensor, turns: Sequence[Sequence[float]] = ()) -> Tensor:
        """``[N, F]`` rewards, groups side by side, to ``[N]`` advantages; with ``[N][K]`` rewards of turns, and
        ``turn_credit`` to go, to ``[N, K]``."""
        if self.args.turn_credit == "to_go" and max(map(len, turns), default=1) > 1:
            return self.columns.turn_advantages(rewards, turns, self.num_generations, self.scale_rewards)
        return self.columns.advantages(
            rewards, self.num_generations, scale=self.scale_rewards, aggregation=self.multi_objective_aggregation
        )

    # Generation

    def _generate(self, prompts):
        if self.known is not None:
            return self.known.generated()
        found = super()._generate(prompts)
        if self.sampling_now is not None:
            raise Generated(prompts, found)
        return found

    def _generate_single_turn(self, prompt_ids, images, multimodal_fields, num_generations, *args, **kwargs):
        if images is not None or multimodal_fields:
            with own_loop(self.accelerator.unwrap_model(self.model_wrapped)):
                return super()._generate_single_turn(
                    prompt_ids, images, multimodal_fields, num_generations, *args, **kwargs
                )
        streams = None if self.sampling_now is None else self.sampling_now.streams(prompt_ids)
        return self._ask(prompt_ids, self.max_completion_length, num_generations, streams)

    def _tokenize_prompts(self, prompts):
        with template_errors():
            found = super()._tokenize_prompts(prompts)
        if self.tools:  # TRL looks itself, turn by turn
            return found
        mine = torch.tensor([max(len(ids) for ids in found[0])], device=self.accelerator.device)
        longest = int(self.accelerator.gather(mine).max())  # so that all processes stop together
        check_context(
            self.model.config,
            prompt=longest,
            completion=self.max_completion_length,
            examples=max(self._examples.values()),
        )
        return found

    def generate_turn(
        self, contexts: list[list[int]], room: int, streams: list[tuple[int, int]], on_finished: FinishedFn
    ) -> Turns:
        """The model's next turn after each context; see `episode_runner.GenerateFn`.

        Args:
            streams: For each context, the number of its completion in the run and the tokens that it has so far.
            on_finished: Called with turns that end before others do, where the backend can tell.
        """
        first = room == self.max_completion_length  # of whole groups; later turns have a history each
        with self.trl.explain_damage():
            return self._ask(contexts, room, self.num_generations if first else 1, streams, on_finished)

    def _ask(
        self,
        contexts: list[list[int]],
        limit: int,
        group_size: int,
        streams: list[tuple[int, int]] | None,
        on_finished: FinishedFn = lambda place, ids: None,
    ) -> Turns:
        """Have the backend sample.

        Under dynamic sampling each completion has random numbers of its own, the same on any number of processes;
        without it they are torch's, in the order in which TRL takes them.
        """
        numbers = None
        if streams is not None and len(streams) == len(contexts) and self.args.filters_groups:
            numbers = RandomNumbers(
                [(self.args.seed, number, TRAINING) for number, _ in streams], [start for _, start in streams]
            )
        takes = inspect.signature(self.backend.generate).parameters
        offered = {"numbers": numbers, "on_finished": on_finished}
        more = {name: value for name, value in offered.items() if name in takes}
        return self.backend.generate(contexts, limit=limit, group_size=group_size, **more)

    # A rollout batch

    def _begin_rollout_batch(self) -> list[OptimizerStep | None]:
        """A new rollout batch as its optimizer steps; None for one without tokens."""
        if self.recorder is not None:
            self.recorder.begin(self.sampling.rollout_batches + 1, self.state.global_step)
        steps = self._prepared(self._filtered())
        if any(step and step.tokens for step in steps):
            self.trl.log({"update/shared_tokens": self.microbatches.shared_tokens})
        if self.use_vllm:
            self.trl.log(cast(Engine, self.vllm_generation).drain())
        return steps

    def _prepared(self, schedule: LocalSteps) -> list[OptimizerStep | None]:
        if schedule.filler is None:
            return [None for _ in schedule.steps]
        steps = self.microbatches.prepare(
            schedule.steps, schedule.filler, model=self.model_wrapped, optimizer=self.optimizer
        )
        return list(steps)

    def _filtered(self) -> LocalSteps:
        """Groups with a signal, from as many rounds as it takes."""
        batch = self._collector.fill()
        if self.sampling.is_solved:
            self.warn(
                f"step {self.state.global_step}: {self.sampling.explain_solved()} Training stops here, before step "
                f"{self.state.max_steps}."
            )
            self.control.should_training_stop = self.control.should_log = True
        return self._scheduler.schedule(batch, self.recorder)

    def _permutation(self, count: int) -> list[int]:
        """The order in which rows are dealt to optimizer steps: under dynamic sampling by the number of the rollout
        batch alone, else TRL's."""
        if not self.args.filters_groups:
            return torch.randperm(count).tolist()
        return np.random.default_rng([self.args.seed, self.sampling.rollout_batches]).permutation(count).tolist()

    def _score_rollouts(
        self, rollouts: list[Rollout], rewards: Tensor, order: list[int], keep: bool
    ) -> list[TrainingRow]:
        """TRL's tensors of rollouts, with old and reference log-probabilities; see `update.schedule.ScoreFn`."""
        with self.trl.answering(KnownRollouts(rollouts, rewards[order])):
            batch = self.trl.whole_batch([{**rollout.row, "prompt": rollout.prompt} for rollout in rollouts])
        varied = informative_groups(self.columns.total(rewards).view(-1, self.num_generations))
        self.trl.correct_logs(
            self.advantages_of(rewards)[order].tolist(), without_difference=1.0 - varied.float().mean().item()
        )
        if keep and "old_per_token_logps" not in batch:  # updates on the sampling policy alone would do without
            with torch.no_grad():
                batch["old_per_token_logps"] = self.trl.score(batch)
        masked = [0 if rollout.account == "trained" else rollout.tokens for rollout in rollouts]
        batch["completion_mask"][[rollout.account != "trained" for rollout in rollouts]] = 0
        return training_rows(batch, masked)

    def _generate_and_score_completions(self, inputs):
        """As in TRL, but corrected for vLLM's probabilities as `mismatch_correction` says."""
        batch = super()._generate_and_score_completions(inputs)
        if self.use_vllm:
            differences = batch["old_per_token_logps"] - batch["sampling_per_token_logps"]
            mask = Microbatch.from_trl(batch).loss_mask
            batch["importance_sampling_ratio"] = mismatch.correction(differences, mask, **mismatch.asked(self.args))
            if self.model.training:
                self._mismatch_check.see(batch, self.state.global_step)
        return batch

    # The loop: the loader is a clock, prompts come from the stream

    def get_train_dataloader(self) -> DataLoader:
        """One tick per micro-batch; per epoch as many as TRL's loader would yield batches."""
        per_rollout = self.args.micro_batches_per_rollout * self.num_iterations
        if self.sampling.size is None:
            ticks = self.args.max_steps * self.args.gradient_accumulation_steps
        else:
            ticks = max(self.sampling.size // self.args.groups_per_rollout, 1) * per_rollout
        return DataLoader(range(ticks), batch_size=1, collate_fn=list)  # type: ignore[arg-type]

    def training_step(self, model: nn.Module, inputs: Any, num_items_in_batch: Any = None) -> Tensor:
        """One tick of the loader; the last one of an optimizer step runs all its microbatches."""
        started = time.perf_counter()
        model.train()
        accumulation, ticks = self.args.gradient_accumulation_steps, self.args.micro_batches_per_rollout
        if self._step % (ticks * self.num_iterations) == 0 or not self._steps:
            self._steps = self._begin_rollout_batch()
        step = self._steps[self._step % ticks // accumulation]
        self._step += 1
        loss = torch.zeros((), device=self.accelerator.device)
        if self.accelerator.sync_gradients:
            before = time.perf_counter()
            trains = step is not None and step.tokens > 0
            if step is not None and trains:
                loss = self.microbatches.run(model, step, number=self.state.global_step)
                self._log_means(self._token_means, "train")
            elif step is not None:  # all of it masked
                rows = step.rows or [step.filler.without_loss()]
                self._gradient.add(Microbatch.of(rows, pad_token_id=self._tokenizer.pad_token_id), {})
            self.trl.log(self._gradient.drain(self.accelerator))
            if (
                not trains and self.args.fp16
            ):  # no gradient, so the optimizer leaves the weights alone; a scaler must see one
                self.accelerator.backward(sum(p.sum() for p in model.parameters() if p.requires_grad) * 0.0)
            self._last_step, self._last_loss = step, loss
            self._metrics["train"]["time/update"].append(time.perf_counter() - before)
        self._current_train_step_time += time.perf_counter() - started
        if self.accelerator.sync_gradients:
            self._metrics["train"]["step_time"].append(self._current_train_step_time)
            self._current_train_step_time = 0.0
        return loss

    def backward(self, model: nn.Module, batch: Microbatch) -> Tensor:
        """Forward and backward of one microbatch, as Hugging Face's trainer does it; returns its part of the loss."""
        return super(GRPOTrainer, self).training_step(model, batch)  # type: ignore[arg-type]

    def _prepare_inputs(self, generation_batch):
        if self.model.training:
            return generation_batch
        return super()._prepare_inputs(as_asked(generation_batch, self._form, self._tokenizer))

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """As in TRL, without filter or refill; the random state stays as it was, so training goes on as without."""
        devices = [self.accelerator.device] if self.accelerator.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            return super().evaluate(*args, **kwargs)

    def _get_grad_norm(self, model, grad_norm=None):
        """Called once before every optimizer step: the last moment at which the weights are still good."""
        grad_norm = super()._get_grad_norm(model, grad_norm)
        loss = self.accelerator.reduce(self._last_loss, reduction="mean")
        evidence = [loss]
        if grad_norm is not None and not self.args.fp16:  # a gradient scaler finds its scale by overflowing
            evidence.append(torch.as_tensor(grad_norm, device=loss.device, dtype=loss.dtype))
        if not torch.stack(evidence).isfinite().all():
            stop_at_non_finite(
                Path(str(self.args.output_dir)),
                self._last_step,
                float(loss),
                grad_norm,
                number=self.state.global_step,
                accelerator=self.accelerator,
            )
        return grad_norm

    # Loss

    def _compute_loss(self, model, inputs):
        if isinstance(inputs, dict):  # evaluation
            if self.loss is None:
                return super()._compute_loss(model, inputs)
            inputs = Microbatch.from_trl(inputs)
        elif self.loss is None:
            with self.trl.scaled(inputs) as theirs:
                return super()._compute_loss(model, theirs)
        if inputs.layout is None:
            logps, entropies, _ = self._get_per_token_logps_and_entropies(
                model,
                torch.cat([inputs.prompt_ids, inputs.completion_ids], dim=1),
                torch.cat([inputs.prompt_mask, inputs.completion_mask], dim=1),
                inputs.completion_ids.shape[1],
                compute_entropy=True,
            )
        else:
            logps, entropies = self.microbatches.per_token(model, inputs)
            if self.recorder is not None:
                self.recorder.see(inputs, logps, self.state.global_step)
        loss, logged = self.loss(inputs, logps, entropies, processes=self.accelerator.num_processes)
        if self.model.training:
            self._gradient.add(inputs, logged)
        self._log_per_token(logged, inputs.loss_mask)
        return loss

    def _get_per_token_logps_and_entropies(
        self, model, input_ids, attention_mask, logits_to_keep, batch_size=None, compute_entropy=False, **more
    ):
        if any(value is not None and value is not False for value in more.values()):  # auxiliary loss, images
            return super()._get_per_token_logps_and_entropies(
                model, input_ids, attention_mask, logits_to_keep, batch_size, compute_entropy, **more
            )
        logps, entropies = self.microbatches.score(
            model, input_ids, attention_mask, logits_to_keep, batch_size=batch_size
        )
        return logps, entropies if compute_entropy else None, None

    # Metrics

    def _undo_metrics(self) -> Callable[[], None]:
        """A function that takes back the records of an optimizer step that memory ran out in."""
        undo = self.trl.undo_metrics()

        def undo_all() -> None:
            self._token_means = TokenMeans()
            self._gradient.clear()
            undo()

        return undo_all

    def _log_per_token(self, values: dict[str, Tensor], mask: Tensor) -> None:
        """Collect per-token figures: over the optimizer step in training, of this batch alone in evaluation."""
        means = self._token_means if self.model.training else TokenMeans()
        for name, value in values.items():
            means.add(name, value, mask)
        if not self.model.training:
            self._log_means(means, "eval")

    def _log_means(self, means: TokenMeans, mode: str) -> None:
        for name, mean in means.drain(self.accelerator).items():
            self._metrics[mode][name].append(mean)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        with grouped_names():
            super().log(logs, start_time)

    # Checkpoints

    def _save(self, output_dir=None, state_dict=None):
        """As in TRL, without its frozen copy of the adapter that training began with.

        The copy comes from there again when the run is resumed, and beside it transformers would load no other.
        """
        super()._save(output_dir, state_dict)
        if isinstance(self.model, PeftModel) and "ref" in self.model.peft_config:
            shutil.rmtree(Path(output_dir or str(self.args.output_dir)) / "ref", ignore_errors=True)

    def own_state(self) -> dict[str, Any]:
        updates = self._step // self.args.gradient_accumulation_steps
        return {
            "processes": self.accelerator.num_processes,
            "updates": updates,
            "steps": [step and step.state_dict() for step in self._steps],
        }

    def everyones_state(self) -> dict[str, Any]:
        return {"sampling": self.sampling.state_dict(), "microbatches": self.microbatches.state_dict()}

    def load_states(self, own: list[dict[str, Any]], everyones: dict[str, Any]) -> None:
        self.sampling.load_state_dict(everyones["sampling"])
        self.microbatches.load_state_dict(everyones["microbatches"])
        accelerator, first = self.accelerator, own[0]
        self._step = first["updates"] * self.args.gradient_accumulation_steps
        as_many = first["processes"] == accelerator.num_processes
        process, processes = (0, 1) if as_many else (accelerator.process_index, accelerator.num_processes)
        written = [state["steps"] for state in own]
        self._steps = self._prepared(LocalSteps.of_checkpoint(written, process, processes, accelerator.device))
