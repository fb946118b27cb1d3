"""An optimizer step in microbatches: how many there are, which rows each holds, and that all processes run as many.

An optimizer step is cut into microbatches of bounded tokens, whatever number that takes. Gradients add up over them and
are exchanged between processes in the last one alone. Nothing non-finite reaches the weights.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType, gather
from torch import Tensor

from ..config import DAPOConfig
from ..distributed import SHARDED
from ..errors import ConfigError, NonFiniteError
from ..rollout.types import TrainingRow
from .batching import Microbatch, split_tokens
from .logprobs import can_pack, layout, per_token
from .memory_probe import measured_budget, optimizer_bytes


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

    @classmethod
    def from_state(cls, state: dict[str, Any], device: torch.device) -> OptimizerStep:
        rows = [TrainingRow(**row).to(device) for row in state["rows"]]
        return cls(**{**state, "rows": rows, "filler": TrainingRow(**state["filler"]).to(device)})


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
    ):
        self.args, self.accelerator, self.model = args, accelerator, model
        self.pad_token_id = pad_token_id
        self.packed = can_pack(model.config)
        self.limit: int | None = None
        """Tokens of a microbatch at most, after memory ran out."""
        self.measured: int | None = None
        """Tokens that ``microbatch_tokens: auto`` found to fit."""
        self._backward, self._undo_metrics, self._warn = backward, undo_metrics, warn

    def state_dict(self) -> dict[str, Any]:
        return {"limit": self.limit, "measured": self.measured}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.limit, self.measured = state["limit"], state["measured"]

    def prepare(
        self, steps: list[list[TrainingRow]], filler: TrainingRow, *, model: Any = None, optimizer: Any = None
    ) -> list[OptimizerStep]:
        """The optimizer steps of a rollout batch; all processes count together, once.

        Args:
            steps: The rows of each.
            filler: Any row, for a process without one.
            model, optimizer: The wrapped model and its optimizer, to measure ``microbatch_tokens: auto`` with.
        """
        lengths = [row.length for rows in steps for row in rows] or [filler.length]
        self._measure(lengths, model, optimizer)
        budget, device = self.budget(lengths), self.accelerator.device
        none = torch.zeros((), dtype=torch.long, device=device)
        active = torch.stack([sum((row.loss_mask.sum() for row in rows), none) for rows in steps])
        plan = [[len(rows), max(len(self._split(rows, budget)), 1)] for rows in steps]
        local = torch.cat([active.unsqueeze(1), torch.tensor(plan, device=device)], dim=1)
        everyones = gather(local.unsqueeze(0))
        totals, most = everyones.sum(dim=0).tolist(), everyones.amax(dim=0).tolist()
        return [
            OptimizerStep(rows, filler, tokens=tokens, completions=completions, microbatches=count, budget=budget)
            for rows, (tokens, completions, _), (_, _, count) in zip(steps, totals, most, strict=True)
        ]

    def budget(self, lengths: list[int]) -> int:
        """Tokens of a microbatch over rows of these lengths."""
        asked = self.measured or self.args.microbatch_tokens
        tokens = asked if isinstance(asked, int) else self.args.per_device_train_batch_size * max(lengths)
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
            packed=self.packed,
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
        first = input_ids.shape[1] - keep
        sequences = [ids[first - p : first + c] for ids, p, c in zip(input_ids, prompts, completions, strict=True)]
        everything = list(range(len(sequences)))
        if batch_size is None:
            return self._score(model, sequences, completions, everything, keep)
        lengths = [len(sequence) for sequence in sequences]
        groups = split_tokens(lengths, self.budget(lengths), packed=self.packed)
        count = int(gather(torch.tensor([len(groups)], device=input_ids.device)).max())
        groups += [[0]] * (count - len(groups))  # again, only to keep step with the other processes
        found = [self._score(model, sequences, completions, group, keep) for group in groups]
        place = torch.tensor([row for group in groups for row in group], device=input_ids.device)

        def ordered(parts: list[Tensor]) -> Tensor:
            stacked = torch.cat(parts)
            return stacked.new_zeros(len(sequences), keep).index_copy(0, place, stacked)

        logps, entropies = zip(*found, strict=True)
        return ordered(list(logps)), None if entropies[0] is None else ordered(list(entropies))

    def microbatches(self, step: OptimizerStep) -> list[list[TrainingRow]]:
        """The rows of every microbatch of an optimizer step on this process; empty for one without loss."""
        found = self._split(step.rows, step.budget)
        found += [[]] * (step.microbatches - len(found))
        return [[step.rows[row] for row in rows] for rows in found]

    def microbatch(self, step: OptimizerStep, rows: list[TrainingRow]) -> Microbatch:
        """One microbatch: its tensors, their layout, and the totals of the whole optimizer step."""
        shown = rows or [step.filler.without_loss()]
        batch = Microbatch.of(shown, pad_token_id=self.pad_token_id)
        lying = layout(
            [torch.cat([row.prompt_ids, row.completion_ids]) for row in shown],
            [len(row.completion_ids) for row in shown],
            batch.completion_ids.shape[1],
            pad_token_id=self.pad_token_id,
            packed=self.packed,
        )
        return replace(batch, layout=lying, rows=len(rows), step_tokens=step.tokens, step_rows=step.completions)

    def _split(self, rows: list[TrainingRow], budget: int) -> list[list[int]]:
        return split_tokens([row.length for row in rows], budget, packed=self.packed)

    def _attempt(self, model: Any, step: OptimizerStep) -> Tensor:
        accelerator = self.accelerator
        total = torch.zeros((), device=accelerator.device)
        every = self.microbatches(step)
        for i, rows in enumerate(every):
            last = i == len(every) - 1
            with contextlib.nullcontext() if last else accelerator.no_sync(model):
                accelerator.gradient_state._set_sync_gradients(last)
                try:
                    total = total + self._backward(model, self.microbatch(step, rows))
                finally:
                    accelerator.gradient_state._set_sync_gradients(True)
        return total

    def _score(
        self, model: Any, sequences: list[Tensor], completions: list[int], rows: list[int], keep: int
    ) -> tuple[Tensor, Tensor | None]:
        lying = layout(
            [sequences[row] for row in rows],
            [completions[row] for row in rows],
            keep,
            pad_token_id=self.pad_token_id,
            packed=self.packed,
        )
        with self.accelerator.autocast():
            return per_token(model, lying)


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
