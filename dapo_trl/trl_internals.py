"""TRL's private members, used here and in `trainer.py`'s overrides alone, under public names.

TRL is pinned to a minor version, because these names may move; `tests/test_contract.py` says which are relied on.

Patches, each a context manager that puts back what it found:

`TRL.metrics_aside`     the training metrics, while TRL generates a round whose lengths are logged here
`TRL.answering`         `_generate` and `_calculate_rewards`, while TRL makes tensors of rollouts that exist already
`TRL.scaled`            `current_gradient_accumulation_steps`, while TRL computes the loss of a microbatch
`TRL.engine_awake`      the sleep mode of vLLM's engine, for a whole rollout batch

Elsewhere, on public names: `generation.params.limited_to` (the length limit of generation settings, for one turn),
`generation.transformers.own_loop` (a model's `generate`), `generation.decoding.grouped_queries` (transformers'
``sdpa``), `generation.vllm.VLLMBackend.generate` (the engine's ``add_request`` and ``step``),
`monitor.trackers.grouped_names` (transformers' names for trackers), `checkpoint.resumable_trainer` (the limit of
checkpoints, while one is saved).
"""

from __future__ import annotations

import contextlib
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from trl import GRPOTrainer

from .errors import NonFiniteError
from .rollout.types import Rollout, Sampled
from .update.batching import Microbatch
from .update.loss import TRL_TOKEN_LOSSES


@dataclass(frozen=True)
class KnownRollouts:
    """Rollouts that exist already, as TRL's `_generate` and `_calculate_rewards` would return them."""

    rollouts: list[Rollout]
    """Those of this process; equally many on every process."""
    rewards: Tensor
    """``[n, F]``: those of all processes, in this order."""

    def generated(self) -> tuple[Any, ...]:
        """The return value of TRL's ``_generate``."""
        first = self.rollouts[0]
        return (
            [rollout.prompt_ids.tolist() for rollout in self.rollouts],
            [rollout.completion_ids.tolist() for rollout in self.rollouts],
            None if first.loss_mask is None else [rollout.loss_mask for rollout in self.rollouts],
            [rollout.completion for rollout in self.rollouts],
            None if first.logprobs is None else [rollout.logprobs for rollout in self.rollouts],
            {},
            None,
            [],
        )


class TRL:
    """The private side of a `GRPOTrainer`.

    Args:
        trainer: It must have been constructed; its overrides answer from its `known` while there is one.
    """

    def __init__(self, trainer: GRPOTrainer):
        self._trainer: Any = trainer

    @property
    def step(self) -> int:
        """Optimizer steps taken."""
        return self._trainer.state.global_step

    @property
    def tokenizer(self) -> Any:
        return self._trainer._tokenizer

    # Metrics

    @property
    def _metrics(self) -> dict[str, list[float]]:
        return self._trainer._metrics["train"]

    def log(self, values: dict[str, Any]) -> None:
        """Record metrics of training; those recorded since the last log are averaged."""
        for name, value in values.items():
            self._metrics[name].append(float(value))

    def log_last(self, values: dict[str, Any]) -> None:
        """Record running totals: only the last value counts."""
        for name, value in values.items():
            self._metrics[name] = [float(value)]

    def undo_metrics(self) -> Callable[[], None]:
        """A function that takes back the metrics recorded from now on."""
        recorded = {name: len(values) for name, values in self._metrics.items()}

        def undo() -> None:
            for name, values in self._metrics.items():
                del values[recorded.get(name, 0) :]

        return undo

    @contextlib.contextmanager
    def metrics_aside(self) -> Iterator[None]:
        """Leave TRL's metrics of the lengths out: ours cover all rounds."""
        metrics = self._trainer._metrics
        previous, metrics["train"] = metrics["train"], defaultdict(list)
        try:
            yield
        finally:
            scratch, metrics["train"] = metrics["train"], previous
        for name, values in scratch.items():
            if name == "num_tokens":  # a running total
                previous[name] = values
            elif not name.startswith("completions/"):
                previous[name].extend(values)

    def count_tokens(self, tokens: int) -> None:
        """Count the tokens of prompts and completions that this process generated, as TRL's ``_generate`` does."""
        state, accelerator = self._trainer.state, self._trainer.accelerator
        state.num_input_tokens_seen += int(accelerator.gather(torch.tensor([tokens], device=accelerator.device)).sum())
        self.log_last({"num_tokens": state.num_input_tokens_seen})

    def warn(self, line: str) -> None:
        """Print a line, on the main process."""
        self._trainer.warn(line)

    # Generation and rewards

    def tokenize(self, prompts: list[Any]) -> list[list[int]]:
        """Token ids of prompts, text or chat messages.

        Raises:
            ConfigError: The longest prompt and completion do not fit into the model's context.
        """
        return self._trainer._tokenize_prompts(prompts)[0]

    def sample(self, rows: list[dict[str, Any]], numbers: range) -> Sampled:
        """Completions by TRL's own generation (or a user's ``rollout_func``) for rows with a ``prompt``.

        Args:
            numbers: Which completion of the run each row is; for the trainer's `sampling_now`.

        Raises:
            NonFiniteError: The model's probabilities are NaN.
        """
        self._trainer.sampling_now = numbers
        try:
            with self.metrics_aside(), self.explain_damage():
                found = self._trainer._generate([row["prompt"] for row in rows])
        finally:
            self._trainer.sampling_now = None
        prompt_ids, completion_ids, masks, completions, logprobs, columns, _, _ = found
        stops = {*self._trainer.eos_token_ids, self.tokenizer.pad_token_id}
        return Sampled(
            prompt_ids=prompt_ids,
            completion_ids=completion_ids,
            completions=completions,
            truncated=[ids[-1] not in stops for ids in completion_ids],
            logprobs=logprobs,
            loss_masks=masks,
            columns=columns,
        )

    @contextlib.contextmanager
    def explain_damage(self) -> Iterator[None]:
        """Turn the refusal to sample from NaN, torch's or ours, into one line.

        Raises:
            NonFiniteError: In its place.
        """
        try:
            yield
        except RuntimeError as error:
            if not isinstance(error, NonFiniteError) and "probability tensor contains" not in str(error):
                raise
            raise NonFiniteError(
                f"step {self.step}: the model's next-token probabilities are NaN or infinite, so it cannot generate. "
                "The weights were damaged by an earlier update: go back to a checkpoint and lower learning_rate."
            ) from error

    def rewards(self, rows: list[dict[str, Any]], sampled: Sampled) -> tuple[Tensor, dict[str, list[Any]]]:
        """``[N, F]`` rewards of all processes, and this process's ``[n]`` values by column of TRL's ``log_extra``."""
        prompts = [row["prompt"] for row in rows]
        rewards = self._trainer._calculate_rewards(rows, prompts, sampled.completions, sampled.completion_ids)
        pending = self._trainer._pending_extra_logs
        count = len(rows)
        columns = {name: list(found) if len(found) == count else [None] * count for name, found in pending.items()}
        pending.clear()
        return rewards, columns

    def whole_batch(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        """One rollout batch as TRL makes it, from generation to advantages."""
        return self._trainer._generate_and_score_completions(rows)

    # Tensors of rollouts that exist

    @contextlib.contextmanager
    def answering(self, known: KnownRollouts) -> Iterator[None]:
        """Let the trainer answer with these rollouts in place of generating and scoring."""
        for name in {name for rollout in known.rollouts for name in rollout.log_columns}:
            self._trainer._pending_extra_logs[name] = [rollout.log_columns.get(name) for rollout in known.rollouts]
        self._trainer.known = known
        try:
            yield
        finally:
            self._trainer.known = None

    def score(self, batch: dict[str, Any]) -> Tensor:
        """``[N, T]`` log-probabilities of a batch's completions under the policy as it is."""
        trainer = self._trainer
        logps, _, _ = trainer._get_per_token_logps_and_entropies(
            trainer.model,
            torch.cat([batch["prompt_ids"], batch["completion_ids"]], dim=1),
            torch.cat([batch["prompt_mask"], batch["completion_mask"]], dim=1),
            batch["completion_ids"].shape[1],
            batch_size=trainer.args.per_device_train_batch_size,
        )
        return logps

    def correct_logs(self, advantages: Sequence[float], *, without_difference: float) -> None:
        """Put right what TRL logged of its last batch, in which it takes neighbours for a group.

        Args:
            advantages: In the order of the batch.
            without_difference: Share of the groups whose rewards are all equal.
        """
        shown = self._trainer._logs["advantages"]
        assert isinstance(shown, deque)
        for _ in range(min(len(advantages), len(shown))):
            shown.pop()
        shown.extend(advantages)
        self._metrics["frac_reward_zero_std"][-1] = without_difference

    # Loss

    @contextlib.contextmanager
    def scaled(self, batch: Microbatch) -> Iterator[dict[str, Any]]:
        """The inputs of TRL's loss, which then gives this microbatch's share of the optimizer step.

        TRL divides its means, and the entropy bonus and auxiliary loss with them, by the number of microbatches, as if
        all held the same. Here that number is one over the share: of the step's tokens for losses that are means over
        tokens, of its completions for those that are means over completions. In evaluation there is nothing to share.
        """
        trainer, inputs = self._trainer, batch.to_trl()
        if batch.step_tokens is None or batch.step_rows is None:
            yield inputs
            return
        processes, before = trainer.accelerator.num_processes, trainer.current_gradient_accumulation_steps
        if trainer.args.loss_type in TRL_TOKEN_LOSSES:
            share = batch.loss_mask.sum() / batch.step_tokens * processes
        else:
            share = torch.tensor(batch.rows / batch.step_rows * processes, device=batch.advantages.device)
        # TRL divides token losses by num_items_in_batch / processes * accumulation / steps_per_generation.
        inputs["num_items_in_batch"] = batch.step_tokens * trainer.args.steps_per_generation * share
        trainer.current_gradient_accumulation_steps = 1.0 / share
        try:
            yield inputs
        finally:
            trainer.current_gradient_accumulation_steps = before

    # vLLM

    @contextlib.contextmanager
    def engine_awake(self) -> Iterator[None]:
        """Wake vLLM's sleeping engine once, with the weights as they are, and let it sleep at the end.

        TRL lets it sleep after every call and pushes the weights again before the next one. A rollout batch may take
        many calls, all of the same policy: its rounds, and the turns of its episodes.
        """
        engine = self._trainer.vllm_generation
        if engine.mode != "colocate" or not engine.enable_sleep_mode:
            yield
            return
        engine.sync_weights()  # wakes what holds the weights
        self._trainer._last_loaded_step = self.step
        engine.llm.wake_up(tags=["kv_cache"])
        engine.enable_sleep_mode = engine._llm_weights_sleeping = False
        try:
            yield
        finally:
            engine.llm.sleep(level=2)
            engine.enable_sleep_mode = engine._llm_weights_sleeping = True
