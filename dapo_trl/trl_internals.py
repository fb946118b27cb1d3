"""TRL's private members, used here and in `trainer.py`'s overrides alone, under public names.

TRL is pinned to a minor version, because these names may move; `tests/test_contract.py` says which are relied on.

Patches, each a context manager that puts back what it found:

`TRL.metrics_aside`     the training metrics, while TRL generates a round whose lengths are logged here
`TRL.sample`            `_generate`, which ends TRL's making of a batch once there are completions
`TRL.answering`         `_generate` and `_calculate_rewards`, while TRL makes tensors of rollouts that exist already;
                        its tools and environments are put aside
`TRL.scaled`            `current_gradient_accumulation_steps`, while TRL computes the loss of a microbatch
`TRL.engine_awake`      the sleep mode of vLLM's engine, for a whole rollout batch
`head_on_cpu`           the functions of TRL's language-model head, where there is no Triton
`Engine.make`           TRL's `VLLMGeneration`, while it makes a trainer, and vLLM's `LLM` within it

Elsewhere, on public names: `generation.params.replaced` (the length limit of generation settings, for one turn),
`generation.transformers.own_loop` (a model's `generate`), `generation.decoding.grouped_queries` (transformers'
``sdpa``), `generation.vllm.VLLMBackend.generate` (the engine's ``add_request`` and ``step``),
`monitor.trackers.grouped_names` (transformers' names for trackers), `checkpoint.resumable_trainer` (the limit of
checkpoints, while one is saved).
"""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from peft import PeftModel
from torch import Tensor
from torch.distributed.tensor import DTensor
from trl import GRPOTrainer
from trl.generation import vllm_generation
from trl.kernels import chunked_logprob
from trl.trainer import grpo_trainer
from trl.trainer import utils as trainer_utils

from .config import DAPOConfig
from .distributed import SHARDED
from .errors import NonFiniteError
from .generation.params import replaced
from .generation.vllm import active_lora, device_options, lora_options, lora_request, save_adapter, why_merged
from .rollout.types import Rollout, Sampled
from .update.batching import Microbatch
from .update.lm_head import backward_tile, forward_tile
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


@contextlib.contextmanager
def head_on_cpu() -> Iterator[None]:
    """TRL's language-model head scores labelled positions alone within, as it does with Triton, in fewer passes over
    the scores (`update.lm_head`). Where there is Triton nothing changes: it has a kernel, and asks by device."""
    kernels, asked = chunked_logprob, trainer_utils._use_triton
    with contextlib.ExitStack() as stack:
        for name, made in (("_forward_tile", forward_tile), ("_backward_tile", backward_tile)):
            stack.enter_context(replaced(kernels, name, made(getattr(kernels, name))))
        stack.enter_context(
            replaced(trainer_utils, "_use_triton", lambda device: device.type == "cpu" or asked(device))
        )
        yield


class Generated(Exception):
    """Ends TRL's making of a batch when its completions are there; see `TRL.sample`."""

    def __init__(self, prompts: list[Any], found: tuple[Any, ...]):
        self.prompts, self.found = prompts, found
        super().__init__("completions are there")


class SamplingNow:
    """Which completion of the run each context is of that TRL's generation asks for, turn by turn.

    Args:
        numbers: Those of the rows of the first turn.
    """

    def __init__(self, numbers: range):
        self.numbers = numbers
        self._prompts: list[list[int]] = []
        self._known: list[list[int]] = []
        """The tokens of each row so far."""

    def streams(self, contexts: list[list[int]]) -> list[tuple[int, int]] | None:
        """For each context the number of its completion and the tokens that it has so far; None where it is no
        continuation of a row. The contexts are in the order of the rows; rows that have ended are left out."""
        if not self._known:
            self._prompts = self._known = [list(context) for context in contexts]
            return [(number, 0) for number in self.numbers]
        found, row = [], 0
        for context in contexts:
            while row < len(self._known) and context[: len(self._known[row])] != self._known[row]:
                row += 1
            if row == len(self._known):
                return None
            found.append((row, context))
            row += 1
        self._known = list(self._known)
        for row, context in found:
            self._known[row] = list(context)
        return [(self.numbers[row], len(context) - len(self._prompts[row])) for row, context in found]


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
        """Completions by TRL's own generation (a user's ``rollout_func``, ``tools`` and ``environment_factory``
        included) for rows.

        Args:
            numbers: Which completion of the run each row is.

        Raises:
            NonFiniteError: The model's probabilities are NaN.
        """
        self._trainer.sampling_now = SamplingNow(numbers)
        try:
            with self.metrics_aside(), self.explain_damage():
                prompts, found = self._generated(rows)
        finally:
            self._trainer.sampling_now = None
        prompt_ids, completion_ids, masks, completions, logprobs, columns, _, _ = found
        stops = {*self._trainer.eos_token_ids, self.tokenizer.pad_token_id}
        if masks is not None:
            columns = {"own_tokens": [sum(mask) for mask in masks], **columns}
        return Sampled(
            prompts=prompts,
            prompt_ids=prompt_ids,
            completion_ids=completion_ids,
            completions=completions,
            truncated=[ids[-1] not in stops for ids in completion_ids],
            logprobs=logprobs,
            loss_masks=masks,
            columns=columns,
        )

    def _generated(self, rows: list[dict[str, Any]]) -> tuple[list[Any], tuple[Any, ...]]:
        """TRL's prompts for rows, with what its environments show first, and the return value of its ``_generate``."""
        try:
            self.whole_batch(rows)
        except Generated as generated:
            return generated.prompts, generated.found
        raise AssertionError("TRL has made a batch without _generate")

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
        rewards = self._trainer._calculate_rewards(rows, sampled.prompts, sampled.completions, sampled.completion_ids)
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
        theirs = {name: getattr(self._trainer, name) for name in ("tools", "environment_factories", "environments")}
        self._trainer.tools, self._trainer.environment_factories, self._trainer.environments = [], None, None
        self._trainer.known = known
        try:
            yield
        finally:
            self._trainer.known = None
            for name, value in theirs.items():
                setattr(self._trainer, name, value)

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
        """Push the weights as they are to vLLM's engine, and let a sleeping one sleep again at the end.

        TRL lets it sleep after every call and pushes the weights again before the next one. A rollout batch may take
        many calls, all of the same policy: its rounds, and the turns of its episodes.
        """
        engine = self._trainer.vllm_generation
        sleeps = engine.mode == "colocate" and engine.enable_sleep_mode
        if sleeps or self._trainer._last_loaded_step != self.step:
            engine.sync_weights()  # wakes what holds the weights
            self._trainer._last_loaded_step = self.step
        if not sleeps:
            yield
            return
        engine.llm.wake_up(tags=["kv_cache"])
        engine.enable_sleep_mode = engine._llm_weights_sleeping = False
        try:
            yield
        finally:
            engine.llm.sleep(level=2)
            engine.enable_sleep_mode = engine._llm_weights_sleeping = True


class Engine(vllm_generation.VLLMGeneration):
    """TRL's vLLM engine, which is pushed an adapter alone where vLLM can serve it, and which counts what it is pushed.

    Args:
        settings: Of the run.
        model, accelerator, others: As in TRL.
    """

    def __init__(self, model: Any, accelerator: Any, *args: Any, settings: DAPOConfig, **others: Any):
        self.merged_because: str | None = "no adapter is trained"
        """Why merged or whole weights are pushed and not an adapter; None: an adapter is."""
        if isinstance(model, PeftModel):
            self.merged_because = _why_merged(model, accelerator, settings)
        self._computed = _computed_dtype(model, settings)
        self._pushes: list[tuple[int, float]] = []
        self._version, self._bytes = 0, 0
        super().__init__(model, accelerator, *args, **others)

    @classmethod
    def make(cls, settings: DAPOConfig) -> AbstractContextManager[None]:
        """A context in which TRL makes an engine of this class."""
        return replaced(grpo_trainer, "VLLMGeneration", partial(cls, settings=settings))

    def _init_vllm(self) -> None:
        """As in TRL, with arguments of vLLM's engine that TRL has no settings for."""
        if self.mode != "colocate" or not vllm_generation.is_vllm_available():
            super()._init_vllm()
            return
        engine: Any = vllm_generation.LLM
        longest = self.max_model_length or self.model.config.get_text_config().max_position_embeddings
        options = device_options(self.accelerator.device, longest)
        options |= {} if self._computed is None else {"dtype": self._computed}
        if self.merged_because is None:
            engine, options = _serving(engine), options | lora_options(active_lora(cast(PeftModel, self.model)))
        with replaced(vllm_generation, "LLM", lambda **theirs: engine(**{**theirs, **options})):
            super()._init_vllm()

    def sync_weights(self) -> None:
        """As in TRL, or with the adapter alone."""
        started = time.perf_counter()
        if self.merged_because is None:
            self._wake()
            self._push_adapter()
        elif self.mode == "colocate" and self.accelerator.device.type == "cpu":
            self._wake()  # vLLM keeps weights there as its kernels need them, and TRL's push finds them gone
            self.llm.llm_engine.model_executor.driver_worker.model_runner.reload_weights(self._iter_named_params())
            self.llm.reset_prefix_cache()
        else:
            super().sync_weights()
        self._pushes.append((self._bytes, time.perf_counter() - started))

    def _wake(self) -> None:
        """Give a sleeping engine the memory of its weights back."""
        if self._llm_weights_sleeping:
            vllm_generation.empty_cache()
            self.llm.wake_up(tags=["weights"])
            self._llm_weights_sleeping = False

    def _push_adapter(self) -> None:
        """Replace the adapter that vLLM serves by the one as it is now."""
        if self._version:
            self.llm.llm_engine.remove_lora(self._version)
        self._version += 1
        with tempfile.TemporaryDirectory() as folder:
            self._bytes = save_adapter(cast(PeftModel, self.model), Path(folder))
            request = lora_request(self._version, Path(folder))
            self.llm.llm_engine.add_lora(request)
        self.llm.adapter = request

    def _iter_named_params(self) -> Iterator[tuple[str, Tensor]]:
        """As in TRL, counting bytes. What is measured before training is not sharded yet, and TRL takes it for that."""
        self._bytes = 0
        whole = self._dist.fsdp_version == 2 and not any(isinstance(p, DTensor) for p in self.model.parameters())
        with replaced(self._dist, "fsdp_version", None) if whole else contextlib.nullcontext():
            for name, value in super()._iter_named_params():
                self._bytes += value.nbytes
                yield name, value

    def drain(self) -> dict[str, float]:
        """Metrics of the pushes since the last call; see `monitor.metrics.METRICS`."""
        pushes, self._pushes = self._pushes, []
        if not pushes:
            return {}
        return {"vllm/pushed_mib": sum(size for size, _ in pushes) / 2**20, "time/push": sum(s for _, s in pushes)}


def _serving(engine: Any) -> Any:
    """vLLM's engine, which generates with the adapter that was pushed last."""

    class Serving(engine):
        adapter: Any = None

        def generate(self, *args: Any, **kwargs: Any) -> Any:
            return super().generate(*args, lora_request=self.adapter, **kwargs)

        def sleep(self, level: int) -> Any:
            """Keep the model's own weights in the machine's memory: level 2 drops them, and they are never pushed."""
            return super().sleep(level=1)

    return Serving


def _why_merged(model: PeftModel, accelerator: Any, settings: DAPOConfig) -> str | None:
    if not settings.push_adapter:
        return "push_adapter is false"
    if settings.vllm_mode == "server":
        return "TRL pushes no adapter to a server"
    if accelerator.distributed_type in SHARDED:
        return "its weights are sharded"
    return why_merged(model)


def _computed_dtype(model: Any, settings: DAPOConfig) -> str | None:
    """The type that the trainer computes in, in which vLLM computes too; None: as vLLM chooses."""
    if settings.bf16 or settings.fp16:
        return "bfloat16" if settings.bf16 else "float16"
    dtype = next(model.parameters()).dtype
    return str(dtype).removeprefix("torch.") if dtype.is_floating_point else None
