"""``DAPOTrainer``: TRL's ``GRPOTrainer`` with DAPO's loss and batching. Wiring only.

One rollout batch in order: `collect` samples and filters groups until the batch is accepted; TRL computes old and
reference log-probabilities of the kept rows alone; `assembly` deals them to optimizer steps and processes. One
optimizer step in order: `passes` cuts its rows into passes, `_compute_loss` calls `algorithm` on each; gradients and
metrics are normalised over the whole step, all processes together; nothing non-finite reaches the weights.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import gymnasium
import torch
from datasets import Dataset, IterableDataset
from torch import Tensor
from torch.utils.data import DataLoader
from transformers import PreTrainedModel, ProcessorMixin
from trl import GRPOTrainer

from .checkpoint.resumable_trainer import ResumableTrainer
from .checks import NO_VISION, cautions_at_start, check_context, check_request
from .config import DAPOConfig
from .distributed import keep_together
from .errors import ConfigError
from .generation import transformers as compaction
from .monitor.callbacks import NothingLearnt, SoundAlarms
from .monitor.rollout_recorder import RolloutRecorder
from .monitor.trackers import grouped_names
from .prompts.stream import PromptStream, StreamedPrompts, prompt_stream
from .rollout.chat_format import ChatFormat
from .rollout.environments import has_overlong_penalty, make_env
from .rollout.episode import Outcome
from .rollout.rewards import OverlongReward, RewardColumns, checked
from .rollout.trl_bridge import EnvironmentReward, EnvironmentRollout, EnvironmentRows, clock_rows
from .sampling.collector import RolloutCollector
from .sampling.state import SamplingState
from .update import batching
from .update import logprobs as forward
from .update import loss as objective
from .update.guard import stop_at_non_finite
from .update.microbatches import MicrobatchRunner, OptimizerStep, update_from_state, update_state
from .update.schedule import Assembled, assemble
from .update.token_means import TokenMeans
from .update.trl_replay import Replay


class DAPOTrainer(ResumableTrainer):
    """Trains a causal language model with DAPO (arXiv 2503.14476).

    Takes everything `trl.GRPOTrainer` takes and, instead of ``train_dataset``, an environment. With
    ``group_filter="none"`` and ``overlong_shape="none"`` it computes what `GRPOTrainer` computes.

    Args:
        env: id of a registered Gymnasium environment (``"math/Arithmetic-v0"``, ``"my_pkg:my/Task-v0"``) or an
            instance. It supplies prompts and the reward named ``environment``; ``reward_funcs`` given beside it are
            added to that (``reward_weights`` then begin with the environment's).
        args: a `DAPOConfig`; without it the textbook defaults.

    Raises:
        ConfigError: settings, data and environment do not fit together.
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

    def __init__(
        self,
        model,
        reward_funcs=None,
        args: DAPOConfig | None = None,
        train_dataset: Dataset | IterableDataset | None = None,
        eval_dataset=None,
        processing_class=None,
        reward_processing_classes=None,
        callbacks=None,
        optimizers=(None, None),
        quantization_config=None,
        peft_config=None,
        tools=None,
        rollout_func=None,
        environment_factory=None,
        *,
        env: str | gymnasium.Env | None = None,
    ):
        args = DAPOConfig() if args is None else args
        if isinstance(processing_class, ProcessorMixin):
            raise ConfigError(NO_VISION)
        check_request(
            args,
            has_tools=bool(tools or environment_factory),
            has_rewards=not (env is None and reward_funcs is None and environment_factory is None),
        )
        functions = list(reward_funcs) if isinstance(reward_funcs, list | tuple) else [reward_funcs]
        functions = [checked(function) for function in functions if function is not None]
        self.env = None if env is None else make_env(env)
        self._environment_reward = None
        if self.env is not None:
            train_dataset = clock_rows(self.env, args, train_dataset, eval_dataset)
            self._environment_reward = EnvironmentReward(self.env)
            functions.insert(0, self._environment_reward)
            if isinstance(reward_processing_classes, list):
                reward_processing_classes = [None, *reward_processing_classes]
        super().__init__(
            model=model,
            reward_funcs=functions,
            args=args,
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            processing_class=processing_class,
            reward_processing_classes=reward_processing_classes,
            callbacks=callbacks,
            optimizers=optimizers,
            quantization_config=quantization_config,
            peft_config=peft_config,
            tools=tools,
            rollout_func=rollout_func,
            environment_factory=environment_factory,
        )
        if self._is_vlm:
            raise ConfigError(NO_VISION)
        keep_together(self)
        self.stop_ids = frozenset([*self.eos_token_ids, self._tokenizer.pad_token_id])
        self.env_rollout: EnvironmentRollout | None = None
        if self._environment_reward is not None:
            told = {"chat_template": self.chat_template} if self.chat_template else {}
            self.chat_format = ChatFormat(self._tokenizer, self.stop_ids, told | dict(self.chat_template_kwargs))  # type: ignore[arg-type]
            self._environment_reward.bind(self.chat_format)
            if self.rollout_func is None and not self.tools:
                self.rollout_func = self.env_rollout = EnvironmentRollout(self, self._environment_reward)
        task_rewards = len(self.reward_funcs)
        if args.overlong_shape != "none":
            if self.env is not None and has_overlong_penalty(self.env):
                self.warn("the environment has an OverlongPenalty of its own: overlong_shape is not added to it.")
            else:
                self._add_overlong_reward()
        self.columns = RewardColumns(self.reward_func_names, self.reward_weights, task_rewards)
        if args.filters_groups:
            self.columns.check_key(args.filter_key)
        self.prompts = self._prompt_stream()
        self.sampling = SamplingState(self.prompts, args)
        self.on_activity: Callable[[str], None] = lambda activity: None
        """told what goes on within a step, for a progress bar"""
        self.recorder: RolloutRecorder | None = None
        """keeps some rollouts to be looked at"""
        self._collector = RolloutCollector(self)
        self.replay: Replay | None = None
        self.passes = MicrobatchRunner(self)
        self._updates: list[OptimizerStep | None] = []
        self._update: OptimizerStep | None = None
        self._update_loss = torch.zeros(())
        self._token_means = TokenMeans()
        trls = objective.uses_trl_loss(args, has_auxiliary_loss=self.aux_loss_enabled)
        self._objective = None if trls else objective.DAPOLoss.of(args)
        for sentence in cautions_at_start(self.model, args):
            self.warn(sentence)
        self.alarms = SoundAlarms(args, self.accelerator)
        for callback in (NothingLearnt(args.updates_per_rollout), self.alarms):
            self.add_callback(callback)

    # Construction

    def _add_overlong_reward(self) -> None:
        penalty = OverlongReward(**self.args.overlong)
        self.reward_funcs.append(penalty)  # type: ignore[arg-type]
        self.reward_func_names.append(penalty.__name__)
        self.reward_processing_classes.append(None)  # type: ignore[arg-type]
        self.reward_weights = torch.cat([self.reward_weights, torch.ones(1)])

    def _prompt_stream(self) -> PromptStream | StreamedPrompts:
        if self.env is None:
            return prompt_stream(self.train_dataset, seed=self.args.seed, shuffle=self.args.shuffle_dataset)
        rows = EnvironmentRows(self.env, self._tokenizer)
        shuffle = self.args.shuffle_dataset and rows.size is not None
        return PromptStream(rows, size=rows.size, seed=self.args.seed, shuffle=shuffle)

    # Rewards

    @property
    def outcomes(self) -> list[Outcome] | None:
        """What the environment said of the rows that this process scored last; None without one."""
        return None if self._environment_reward is None else self._environment_reward.outcomes

    def accuracy_of(self, rewards: Tensor) -> Tensor:
        """Raw correctness of the rows that this process scored last: ``[n, F]`` of rewards to ``[n]``. Without an
        environment it is the reward before the overlong penalty."""
        if self.outcomes is None:
            return self.columns.unshaped(rewards)
        return torch.tensor([found.accuracy for found in self.outcomes], dtype=torch.float32, device=rewards.device)

    def _calculate_rewards(self, inputs, prompts, completions, completion_ids_list):
        if self.replay is not None:
            return self.replay.rewards
        rewards = super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)
        # A completion that its task could not score has no reward at all, whatever its length.
        decisive = rewards[:, :1] if self._environment_reward is not None else rewards[:, : self.columns.task]
        rewards[decisive.isnan().all(dim=1)] = torch.nan
        return rewards

    def advantages_of(self, rewards: Tensor) -> Tensor:
        """``[N, F]`` of rewards, groups side by side, to ``[N]`` of advantages."""
        return self.columns.advantages(
            rewards, self.num_generations, scale=self.scale_rewards, aggregation=self.multi_objective_aggregation
        )

    # Generation

    def _generate(self, prompts):
        return super()._generate(prompts) if self.replay is None else self.replay.generated()

    def _generate_single_turn(self, *args, **kwargs):
        with compaction.compacting(self.accelerator.unwrap_model(self.model_wrapped)):
            return super()._generate_single_turn(*args, **kwargs)

    def _tokenize_prompts(self, prompts):
        found = super()._tokenize_prompts(prompts)
        if self.tools:  # TRL looks itself, turn by turn
            return found
        mine = torch.tensor([max(len(ids) for ids in found[0])], device=self.accelerator.device)
        longest = int(self.accelerator.gather(mine).max())  # so that all processes stop together
        check_context(self.model.config, prompt=longest, completion=self.max_completion_length)
        return found

    def generate_turn(self, contexts: list[list[int]], room: int) -> tuple[list[list[int]], list[list[float]] | None]:
        """The model's next turn after each context; see `episodes.Generate`."""
        first = room == self.max_completion_length  # of whole groups; later turns have a history each
        engine = self.vllm_generation if self.use_vllm else self.generation_config
        name = "max_completion_length" if self.use_vllm else "max_new_tokens"
        before = getattr(engine, name)
        setattr(engine, name, room)
        try:
            return self._generate_single_turn(contexts, None, {}, self.num_generations if first else 1)
        finally:
            setattr(engine, name, before)

    def _rollout_updates(self) -> list[OptimizerStep | None]:
        """A new rollout batch as its optimizer steps; None for one without tokens."""
        if self.recorder is not None:
            self.recorder.begin(self.sampling.rollout_batches + 1, self.state.global_step)
        tools = self.tools or self.environment_factories is not None
        rows, filler = self._unfiltered_rows() if tools else self._filtered_rows()
        if filler is None:
            return [None for _ in rows]
        return [update if update.tokens else None for update in self.passes.prepare(rows, filler)]

    def _unfiltered_rows(self) -> Assembled:
        """TRL's own path, for episodes that cannot be replayed."""
        rows = batching.unpad(self._collector.unfiltered())
        order = torch.randperm(len(rows)).tolist()
        updates = batching.split_evenly(len(rows), self.args.updates_per_pass)
        return [[rows[order[i]] for i in update] for update in updates], rows[0]

    def _filtered_rows(self) -> Assembled:
        collected = self._collector.fill()
        self.sampling.counts += collected.sampler.counts
        if self.sampling.solved.see(collected.sampler):
            self.warn(
                f"step {self.state.global_step}: {self.sampling.solved.explain()} Training stops here, before step "
                f"{self.state.max_steps}."
            )
            self.control.should_training_stop = self.control.should_log = True
        return assemble(self, collected)

    # The loop: the loader is a clock, prompts come from the stream

    def get_train_dataloader(self) -> DataLoader:
        """One tick per micro-batch; per epoch as many as TRL's loader would yield batches."""
        per_rollout = self.args.micro_batches_per_rollout * self.num_iterations
        if self.prompts.size is None:
            ticks = self.args.max_steps * self.args.gradient_accumulation_steps
        else:
            ticks = max(self.prompts.size // self.args.groups_per_rollout, 1) * per_rollout
        return DataLoader(range(ticks), batch_size=1, collate_fn=list)  # type: ignore[arg-type]

    def training_step(self, model, inputs, num_items_in_batch=None) -> Tensor:
        """One tick of the loader; the last one of an optimizer step runs all its passes, however many they are."""
        started = time.perf_counter()
        model.train()
        accumulation, ticks = self.args.gradient_accumulation_steps, self.args.micro_batches_per_rollout
        if self._step % (ticks * self.num_iterations) == 0 or not self._updates:
            self._updates = self._rollout_updates()
        update = self._updates[self._step % ticks // accumulation]
        self._step += 1
        loss = torch.zeros((), device=self.accelerator.device)
        if self.accelerator.sync_gradients:
            before = time.perf_counter()
            if update is not None:
                loss = self.passes.run(model, update)
                self._log_means(self._token_means, "train")
            elif self.args.fp16:  # no gradient, so the optimizer leaves the weights alone; a scaler must see one
                self.accelerator.backward(sum(p.sum() for p in model.parameters() if p.requires_grad) * 0.0)
            self._update, self._update_loss = update, loss
            self._metrics["train"]["time/update"].append(time.perf_counter() - before)
        self._current_train_step_time += time.perf_counter() - started
        if self.accelerator.sync_gradients:
            self._metrics["train"]["step_time"].append(self._current_train_step_time)
            self._current_train_step_time = 0.0
        return loss

    def backward(self, model, batch: batching.Batch) -> Tensor:
        """Forward and backward of one pass, as Hugging Face's trainer does it; returns its part of the loss."""
        return super(GRPOTrainer, self).training_step(model, batch)

    def _prepare_inputs(self, generation_batch):
        return generation_batch if self.model.training else super()._prepare_inputs(generation_batch)

    def evaluate(self, *args, **kwargs):
        """As in TRL, without filter or refill; the random state stays as it was, so training goes on as without."""
        devices = [self.accelerator.device] if self.accelerator.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            return super().evaluate(*args, **kwargs)

    def _get_grad_norm(self, model, grad_norm=None):
        """Called once before every optimizer step: the last moment at which the weights are still good."""
        grad_norm = super()._get_grad_norm(model, grad_norm)
        loss = self.accelerator.reduce(self._update_loss, reduction="mean")
        evidence = [loss]
        if grad_norm is not None and not self.args.fp16:  # a gradient scaler finds its scale by overflowing
            evidence.append(torch.as_tensor(grad_norm, device=loss.device, dtype=loss.dtype))
        if not torch.stack(evidence).isfinite().all():
            stop_at_non_finite(self, self._update, float(loss), grad_norm)
        return grad_norm

    # Loss

    def _compute_loss(self, model, inputs):
        if self._objective is None:
            with objective.scaled_for_trl(self, inputs):
                return super()._compute_loss(model, inputs)
        if "layout" in inputs:
            with self.accelerator.autocast():
                logps, entropies = forward.per_token(model, inputs["layout"])
            if self.recorder is not None:
                self.recorder.see(inputs, logps, self.state.global_step)
        else:  # evaluation
            logps, entropies, _ = self._get_per_token_logps_and_entropies(
                model,
                torch.cat([inputs["prompt_ids"], inputs["completion_ids"]], dim=1),
                torch.cat([inputs["prompt_mask"], inputs["completion_mask"]], dim=1),
                inputs["completion_ids"].size(1),
                compute_entropy=True,
            )
        loss, logged = self._objective(inputs, logps, entropies, processes=self.accelerator.num_processes)
        self._record(logged, batching.loss_mask(inputs))
        return loss

    def _get_per_token_logps_and_entropies(
        self, model, input_ids, attention_mask, logits_to_keep, batch_size=None, compute_entropy=False, **more
    ):
        if any(value is not None and value is not False for value in more.values()):  # auxiliary loss, images
            return super()._get_per_token_logps_and_entropies(
                model, input_ids, attention_mask, logits_to_keep, batch_size, compute_entropy, **more
            )
        logps, entropies = self.passes.score(model, input_ids, attention_mask, logits_to_keep, batch_size=batch_size)
        return logps, entropies if compute_entropy else None, None

    def forget_metrics(self, logged: dict[str, int]) -> None:
        """Take back what the passes of an abandoned optimizer step recorded, beyond the ``logged`` entries."""
        self._token_means = TokenMeans()
        for name, values in self._metrics["train"].items():
            del values[logged.get(name, 0) :]

    def _record(self, values: dict[str, Tensor], mask: Tensor) -> None:
        """Collect per-token figures: over the optimizer step in training, of this batch alone in evaluation."""
        means = self._token_means if self.model.training else TokenMeans()
        for name, value in values.items():
            means.add(name, value, mask)
        if not self.model.training:
            self._log_means(means, "eval")

    def _log_means(self, means: TokenMeans, mode: str) -> None:
        for name, mean in means.drain(self.accelerator).items():
            self._metrics[mode][name].append(mean)

    def log(self, logs, start_time=None):
        with grouped_names():
            super().log(logs, start_time)

    # Checkpoints

    def rollout_shape(self) -> dict[str, int]:
        return {
            "processes": self.accelerator.num_processes,
            "num_generations": self.num_generations,
            "steps_per_generation": self.args.micro_batches_per_rollout,
            "gradient_accumulation_steps": self.args.gradient_accumulation_steps,
        }

    def own_state(self) -> dict[str, Any]:
        return {"step": self._step, "updates": [update and update_state(update) for update in self._updates]}

    def everyones_state(self) -> dict[str, Any]:
        found = {"limit": self.passes.limit, "measured": self.passes.measured}
        return {"sampling": self.sampling.state_dict(), "passes": found}

    def load_states(self, own: dict[str, Any], everyones: dict[str, Any]) -> None:
        self._step, device = own["step"], self.accelerator.device
        self._updates = [update and update_from_state(update, device) for update in own["updates"]]
        self.sampling.load_state_dict(everyones["sampling"])
        self.passes.limit, self.passes.measured = everyones["passes"]["limit"], everyones["passes"]["measured"]
