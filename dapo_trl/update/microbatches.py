"""An optimizer step in microbatches: how many there are, which rows each holds, and that all processes run as many.

An optimizer step is cut into microbatches of bounded tokens, whatever number that takes. Gradients add up over them and
are exchanged between processes in the last one alone. Nothing non-finite reaches the weights.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn, cast

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType, gather
from torch import Tensor

from ..config import DAPOConfig
from ..distributed import SHARDED
from ..errors import ConfigError, NonFiniteError
from ..rollout.types import TrainingRow
from .batching import Microbatch
from .logprobs import Layout, Line, per_token
from .memory_probe import measured_budget, optimizer_bytes
from .packing import Packer
from .precision import Precision


@dataclass
class OptimizerStep:
    """The rows of one optimizer step on this process, and their totals over all processes."""

    rows: list[TrainingRow]
    filler: TrainingRow
    """Run without loss where this process has fewer microbatches than another."""
    tokens: int
    """Tokens that the loss counts, all processes."""
    completions: int
    """Completions, all processes."""
    microbatches: int
    """Microbatches of every process."""
    budget: int
    """Tokens of a microbatch."""

    def state_dict(self) -> dict[str, Any]:
        """Plain data and tensors, for a checkpoint."""
        return {**vars(self), "rows": [row.state_dict() for row in self.rows], "filler": self.filler.state_dict()}


class MicrobatchRunner:
    """Cuts optimizer steps into microbatches and runs them.

    Args:
        args: The settings of the run.
        accelerator: Its processes.
        model: The model being trained, wrapped or not, for its configuration and its trained weights.
        pad_token_id: Fills rows up.
        backward: Forward and backward of one microbatch on a model; returns its part of the loss.
        undo_metrics: Notes how far metrics are recorded, and returns a function that takes back all that follows.
        warn: Prints a line.
        head: Forward and backward passes of the language-model head are within it.
    """

    def __init__(
        self,
        args: DAPOConfig,
        accelerator: Accelerator,
        model: Any,
        *,
        pad_token_id: int,
        backward: Callable[[Any, Microbatch], Tensor],
        undo_metrics: Callable[[], Callable[[], None]],
        warn: Callable[[str], None],
        head: Callable[[], AbstractContextManager[None]] = contextlib.nullcontext,
    ):
        self.args, self.accelerator, self.model = args, accelerator, model
        self.pad_token_id = pad_token_id
        self.precision = Precision(accelerator, tries=args.cpu_precision == "auto", say=warn)
        self.packer = self._packer(model, refused=self._sharing_refused())
        if args.share_prompts == "auto" and self.packer.refused:
            warn(f"every completion is computed with a prompt of its own, because {self.packer.refused}.")
        self.shared_tokens = 0.0
        """Share of the tokens of a rollout batch that sharing saves in each pass over it, all processes."""
        self.limit: int | None = None
        """Tokens of a microbatch at most, after memory ran out."""
        self.measured: int | None = None
        """Tokens that ``microbatch_tokens: auto`` found to fit."""
        self._backward, self._undo_metrics, self._warn, self._head = backward, undo_metrics, warn, head

    def _sharing_refused(self) -> str:
        if self.args.neftune_noise_alpha:
            return "neftune_noise_alpha is set, and its noise depends on the length of a row"
        if self.args.torch_compile:
            return "torch_compile is on, for which no two microbatches would be alike"
        return "share_prompts is 'off'" if self.args.share_prompts == "off" else ""

    def _packer(self, model: Any, *, refused: str) -> Packer:
        return Packer(
            self.accelerator.unwrap_model(model),
            refused=refused,
            pad_token_id=self.pad_token_id,
            device=self.accelerator.device,
            dtype=lambda: self.precision.dtype,
        )

    def _packer_of(self, model: Any) -> Packer:
        """The trained model's own, unless this is a reference model with another attention."""
        backend = self.accelerator.unwrap_model(model).config.get_text_config()._attn_implementation
        return self.packer if backend == self.packer.backend else self._packer(model, refused="it is another")

    def state_dict(self) -> dict[str, Any]:
        return {"limit": self.limit, "measured": self.measured, "halved": self.precision.halved}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.limit, self.measured = state["limit"], state["measured"]
        self.precision.restore(state.get("halved"))

    def prepare(
        self, steps: list[list[TrainingRow]], filler: TrainingRow, *, model: Any = None, optimizer: Any = None
    ) -> list[OptimizerStep]:
        """The optimizer steps of a rollout batch; all processes count together, once.

        Args:
            steps: The rows of each.
            filler: Any row, for a process without one.
            model, optimizer: The wrapped model and its optimizer, to measure ``microbatch_tokens: auto`` with.
        """
        self._measure([row.length for rows in steps for row in rows] or [filler.length], model, optimizer)
        parts = [_sequences(rows) for rows in steps if rows] or [_sequences([filler])]
        budget, device = self._budget(parts), self.accelerator.device
        none = torch.zeros((), dtype=torch.long, device=device)
        active = torch.stack([sum((row.loss_mask.sum() for row in rows), none) for rows in steps])
        plan = []
        for rows in steps:
            found = self._split(rows, budget)
            computed = sum(line.tokens for lines in found for line in lines)
            plan.append([len(rows), max(len(found), 1), sum(row.length - 1 for row in rows), computed])
        local = torch.cat([active.unsqueeze(1), torch.tensor(plan, device=device)], dim=1)
        everyones = gather(local.unsqueeze(0))
        totals, most = everyones.sum(dim=0), everyones.amax(dim=0).tolist()
        separate, computed = totals[:, 3:].sum(dim=0).tolist()
        self.shared_tokens = 1 - computed / max(separate, 1)
        return [
            OptimizerStep(rows, filler, tokens=tokens, completions=completions, microbatches=most_of[2], budget=budget)
            for rows, (tokens, completions, *_), most_of in zip(steps, totals.tolist(), most, strict=True)
        ]

    def _budget(self, parts: Sequence[tuple[Sequence[np.ndarray], Sequence[int]]]) -> int:
        """Tokens of a microbatch: as many as asked for, or those of TRL's microbatch less what sharing prompts saves.

        Args:
            parts: Sequences and tokens of their prompts, of what is cut by itself.
        """
        asked = self.measured or self.args.microbatch_tokens
        if isinstance(asked, int):
            tokens = asked
        else:
            longest = max(len(sequence) for sequences, _ in parts for sequence in sequences)
            tokens = self.packer.shared_budget(parts, self.args.per_device_train_batch_size * longest)
        return tokens if self.limit is None else min(tokens, self.limit)

    def _measure(self, lengths: list[int], model: Any, optimizer: Any) -> None:
        """Find the budget of ``microbatch_tokens: auto``, once, before the first optimizer step."""
        device = self.accelerator.device
        if self.args.microbatch_tokens != "auto" or self.measured is not None or device.type != "cuda":
            return
        if self.accelerator.distributed_type in SHARDED:
            raise ConfigError(
                "microbatch_tokens is 'auto' with FSDP or DeepSpeed: a sharded model cannot be tried out beforehand. "
                "Set a number of tokens."
            )
        longest = int(gather(torch.tensor([max(lengths)], device=device)).max())
        rows = int(gather(torch.tensor([len(lengths)], device=device)).max())
        self.measured = measured_budget(
            self.accelerator,
            model,
            packer=self.packer,
            reserve=optimizer_bytes(self.model, optimizer),
            row=longest,
            most_rows=rows,
        )
        self._warn(
            f"microbatch_tokens is 'auto': {self.measured} tokens of a microbatch fit (rows of up to {longest})."
        )

    def run(self, model: Any, step: OptimizerStep, *, number: int) -> Tensor:
        """All microbatches of an optimizer step; returns its loss on this process.

        When memory runs out on a single process, the same rows are done again with half the budget.

        Args:
            number: Optimizer steps taken so far.

        Raises:
            ConfigError: Memory ran out, and there is nothing to halve or other processes wait in mid-step.
        """
        while True:
            if self.limit is not None and step.budget > self.limit:
                step.budget = self.limit
                step.microbatches = max(len(self._split(step.rows, step.budget)), 1)
            undo = self._undo_metrics()
            try:
                return self._attempt(model, step)
            except torch.OutOfMemoryError:
                pass  # what the failed microbatch holds is free once this block is left
            self._halve(step, number)
            model.zero_grad()
            torch.cuda.empty_cache()
            undo()

    def _halve(self, step: OptimizerStep, number: int) -> None:
        longest = max(row.length for row in step.rows)
        if self.accelerator.num_processes > 1:
            raise ConfigError(
                f"step {number}: out of memory with {step.budget} tokens in a microbatch. On several processes a step "
                f"cannot be done again: resume from the last checkpoint with microbatch_tokens {step.budget // 2}."
            )
        if step.budget <= longest:
            raise ConfigError(
                f"step {number}: out of memory with a single completion of {longest} tokens in a microbatch. Lower "
                "max_completion_length, turn gradient_checkpointing on, or train an adapter (LoRA)."
            )
        self.limit = step.budget // 2
        self._warn(
            f"step {number}: out of memory with {step.budget} tokens in a microbatch. The step is done again with "
            f"{self.limit}; set microbatch_tokens to that from the start."
        )

    def score(
        self,
        model: Any,
        input_ids: Tensor,
        attention_mask: Tensor,
        keep: int,
        *,
        batch_size: int | None,
    ) -> tuple[Tensor, Tensor | None]:
        """Log-probabilities and entropies of the completions of a padded batch, in microbatches of bounded tokens.

        Args:
            input_ids, attention_mask: ``[N, L]``: left-padded prompts, then right-padded completions.
            keep: ``T``, columns of the completions.
            batch_size: Rows whose memory may be used at once; None: all rows in one microbatch, as training needs it.

        Returns:
            ``[N, T]`` each; the entropies are None where the model computes none.
        """
        prompts, completions = (
            attention_mask[:, part].sum(dim=1).tolist() for part in (slice(None, -keep), slice(-keep, None))
        )
        first, device, packer = input_ids.shape[1] - keep, input_ids.device, self._packer_of(model)
        rows = zip(input_ids.cpu().numpy(), prompts, completions, strict=True)
        sequences = [ids[first - prompt : first + completion] for ids, prompt, completion in rows]
        lengths = [len(sequence) for sequence in sequences]
        if batch_size is None:
            found = packer.split(sequences, prompts, len(lengths) * max(lengths))
            found = [[line for lines in found for line in lines]]
        else:
            found = packer.split(sequences, prompts, self._budget([(sequences, prompts)]))
            count = int(gather(torch.tensor([len(found)], device=device)).max())
            found += [found[-1][:1]] * (count - len(found))  # again, only to keep step with the other processes

        def scored_lines(lines: list[Line]) -> tuple[Tensor, Tensor | None]:
            with self.precision.autocast(), self._within(packer):
                return per_token(model, packer.layout(sequences, completions, lines, keep))

        self.precision.settle(lambda: scored_lines(max(found, key=_load)))
        scored = [scored_lines(lines) for lines in found]
        place = torch.tensor([row for lines in found for line in lines for row in line.rows], device=device)

        def ordered(parts: Sequence[Tensor | None]) -> Tensor | None:
            if parts[0] is None:
                return None
            stacked = torch.cat(cast(list[Tensor], parts))
            return stacked.new_zeros(len(sequences), keep).index_copy(0, place, stacked)

        logps, entropies = (ordered(parts) for parts in zip(*scored, strict=True))
        return cast(Tensor, logps), entropies

    def microbatches(self, step: OptimizerStep) -> list[list[Line]]:
        """The lines of every microbatch of an optimizer step on this process; none for one without loss."""
        found = self._split(step.rows, step.budget)
        return found + [[]] * (step.microbatches - len(found))

    def microbatch(self, step: OptimizerStep, lines: list[Line]) -> Microbatch:
        """One microbatch: its tensors, their layout, and the totals of the whole optimizer step."""
        rows = step.rows if lines else [step.filler.without_loss()]
        count = sum(len(line.rows) for line in lines)
        lines = lines or self._split(rows, step.budget)[0]
        numbers = [row for line in lines for row in line.rows]
        shown = [rows[number] for number in numbers]
        sequences = dict(zip(numbers, _on_host(shown), strict=True))
        completions = {number: len(row.completion_ids) for number, row in zip(numbers, shown, strict=True)}
        lying = self.packer.layout(sequences, completions, lines)
        batch = Microbatch.of(shown, pad_token_id=self.pad_token_id)
        return replace(batch, layout=lying, rows=count, step_tokens=step.tokens, step_rows=step.completions)

    def per_token(self, model: Any, batch: Microbatch) -> tuple[Tensor, Tensor | None]:
        """Log-probabilities and entropies of one microbatch, ``[N, T]`` each."""
        with self.precision.autocast():
            return per_token(model, cast(Layout, batch.layout))

    @contextlib.contextmanager
    def _within(self, packer: Packer) -> Iterator[None]:
        """Forward and backward passes take a packer's layouts, and the head, within."""
        with packer.answering(), self._head():
            yield

    def _tried(self, model: Any, batch: Microbatch) -> None:
        with self._within(self.packer):
            self.per_token(model, batch)

    def _split(self, rows: list[TrainingRow], budget: int) -> list[list[Line]]:
        return self.packer.split(*_sequences(rows), budget)

    def _attempt(self, model: Any, step: OptimizerStep) -> Tensor:
        accelerator = self.accelerator
        total = torch.zeros((), device=accelerator.device)
        every = self.microbatches(step)
        self.precision.settle(lambda: self._tried(model, self.microbatch(step, max(every, key=_load))))
        for i, lines in enumerate(every):
            last = i == len(every) - 1
            with contextlib.nullcontext() if last else accelerator.no_sync(model), self._within(self.packer):
                accelerator.gradient_state._set_sync_gradients(last)
                try:
                    total = total + self._backward(model, self.microbatch(step, lines))
                finally:
                    accelerator.gradient_state._set_sync_gradients(True)
        return total


def _load(lines: list[Line]) -> int:
    return sum(line.load for line in lines)


def _sequences(rows: Sequence[TrainingRow]) -> tuple[list[np.ndarray], list[int]]:
    """The tokens of each row, prompt and completion side by side, and how many of them are the prompt."""
    return _on_host(rows), [len(row.prompt_ids) for row in rows]


def _on_host(rows: Sequence[TrainingRow]) -> list[np.ndarray]:
    """The tokens of each row, prompt and completion side by side, in one copy from the device."""
    if not rows:
        return []
    tokens = torch.cat([ids for row in rows for ids in (row.prompt_ids, row.completion_ids)]).cpu().numpy()
    return np.split(tokens, np.cumsum([row.length for row in rows])[:-1])


def stop_at_non_finite(
    folder: Path, step: OptimizerStep | None, loss: float, grad_norm: Any, *, number: int, accelerator: Accelerator
) -> NoReturn:
    """Save the rows of the optimizer step beside the run, and stop.

    Raises:
        NonFiniteError: Always.
    """
    path = folder / f"non_finite_step_{number}_process_{accelerator.process_index}.pt"
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"step": number, "update": step and step.state_dict()}, path)
    if accelerator.distributed_type == DistributedType.DEEPSPEED:  # its engine updates within the backward
        when = "after the update: go back to a checkpoint"
    else:
        when = "before the update, so the weights are those of the step before"
    raise NonFiniteError(
        f"step {number}: the loss is {loss} and the gradient norm {grad_norm}. Training stopped {when}; the batch is "
        f"in {path}. Lower learning_rate or max_grad_norm, or look at the rewards of that batch."
    )
