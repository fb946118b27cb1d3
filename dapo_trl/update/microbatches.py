"""Forward and backward passes: how many there are, which rows each holds, and that all processes run as many.

An optimizer step is cut into passes of bounded tokens, whatever number that takes. Gradients add up over the passes and
are exchanged between processes in the last one alone.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from accelerate.utils import DistributedType, gather
from torch import Tensor

from ..errors import ConfigError
from .batching import Batch, Row, collate, length, loss_mask, split_tokens, to_device, without_loss
from .logprobs import can_pack, layout, per_token
from .memory_probe import measured_budget

if TYPE_CHECKING:
    from ..trainer import DAPOTrainer

SHARDED = (DistributedType.FSDP, DistributedType.DEEPSPEED)


@dataclass
class OptimizerStep:
    """The rows of one optimizer step on this process, and what they amount to on all processes together."""

    rows: list[Row]
    filler: Row
    """run without_loss where this process has fewer passes than another"""
    tokens: int
    """active tokens of the step, all processes"""
    count: int
    """completions of the step, all processes"""
    passes: int
    """of every process"""
    budget: int
    """tokens of a pass"""


class MicrobatchRunner:
    """Runs the passes of a `DAPOTrainer`."""

    def __init__(self, trainer: DAPOTrainer):
        self.trainer = trainer
        self.accelerator = trainer.accelerator
        self.packed = can_pack(trainer.model.config)
        self.limit: int | None = None
        """the most tokens of a pass, after memory ran out"""
        self.measured: int | None = None
        """the tokens that ``microbatch_tokens: auto`` found to fit"""

    def prepare(self, updates: list[list[Row]], filler: Row) -> list[OptimizerStep]:
        """The optimizer steps of a rollout batch; all processes count together, once."""
        lengths = [length(row) for rows in updates for row in rows] or [length(filler)]
        self._measure(lengths)
        budget, device = self.budget(lengths), self.accelerator.device
        none = torch.zeros((), dtype=torch.long, device=device)
        active = torch.stack([sum((loss_mask(row).sum() for row in rows), none) for rows in updates])
        plan = [[len(rows), max(len(self._split(rows, budget)), 1)] for rows in updates]
        local = torch.cat([active.unsqueeze(1), torch.tensor(plan, device=device)], dim=1)
        everyones = gather(local.unsqueeze(0))
        totals, most = everyones.sum(dim=0).tolist(), everyones.amax(dim=0).tolist()
        return [
            OptimizerStep(rows, filler, tokens=tokens, count=count, passes=passes, budget=budget)
            for rows, (tokens, count, _), (_, _, passes) in zip(updates, totals, most, strict=True)
        ]

    def budget(self, lengths: list[int]) -> int:
        """Tokens of a pass over rows of these lengths."""
        args = self.trainer.args
        asked = self.measured or args.microbatch_tokens
        tokens = asked if isinstance(asked, int) else args.per_device_train_batch_size * max(lengths)
        return tokens if self.limit is None else min(tokens, self.limit)

    def _measure(self, lengths: list[int]) -> None:
        """Find the budget of ``microbatch_tokens: auto``, once, before the first optimizer step."""
        trainer, device = self.trainer, self.accelerator.device
        if trainer.args.microbatch_tokens != "auto" or self.measured is not None or device.type != "cuda":
            return
        if self.accelerator.distributed_type in SHARDED:
            raise ConfigError(
                "microbatch_tokens is 'auto' with FSDP or DeepSpeed: a sharded model cannot be tried out beforehand. "
                "Set a number of tokens."
            )
        longest = int(gather(torch.tensor([max(lengths)], device=device)).max())
        rows = int(gather(torch.tensor([len(lengths)], device=device)).max())
        self.measured = measured_budget(trainer, trainer.model_wrapped, row=longest, most_rows=rows)
        trainer.warn(f"microbatch_tokens is 'auto': {self.measured} tokens of a pass fit (rows of up to {longest}).")

    def run(self, model: Any, update: OptimizerStep) -> Tensor:
        """All passes of an optimizer step; returns its loss on this process.

        When memory runs out on a single process, the same rows are done again with half the budget.

        Raises:
            ConfigError: memory ran out, and there is nothing to halve or other processes wait in the middle of a pass.
        """
        while True:
            if self.limit is not None and update.budget > self.limit:
                update.budget = self.limit
                update.passes = max(len(self._split(update.rows, update.budget)), 1)
            logged = {name: len(values) for name, values in self.trainer._metrics["train"].items()}
            try:
                return self._attempt(model, update)
            except torch.OutOfMemoryError:
                pass  # what the failed pass holds is free once this block is left
            self._halve(update)
            model.zero_grad()
            torch.cuda.empty_cache()
            self.trainer.forget_metrics(logged)

    def _halve(self, update: OptimizerStep) -> None:
        step, longest = self.trainer.state.global_step, max(map(length, update.rows))
        if self.accelerator.num_processes > 1:
            raise ConfigError(
                f"step {step}: out of memory with {update.budget} tokens in a pass. On several processes a step cannot "
                f"be done again: resume from the last checkpoint with microbatch_tokens {update.budget // 2}."
            )
        if update.budget <= longest:
            raise ConfigError(
                f"step {step}: out of memory with a single completion of {longest} tokens in a pass. Lower "
                "max_completion_length, turn gradient_checkpointing on, or train an adapter (LoRA)."
            )
        self.limit = update.budget // 2
        self.trainer.warn(
            f"step {step}: out of memory with {update.budget} tokens in a pass. The step is done again with "
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
        """Log-probabilities and entropies of the completions of a padded batch, in passes of bounded tokens.

        Args:
            input_ids, attention_mask: ``[N, L]``: left-padded prompts, then right-padded completions.
            keep: ``T``, columns of the completions.
            batch_size: rows whose memory may be used at once; None: all rows in one pass, as training needs it.

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

    def batch(self, update: OptimizerStep, rows: list[Row]) -> Batch:
        """One pass: TRL's tensors, how they are laid out, and the figures of the whole optimizer step."""
        pad = self.trainer._tokenizer.pad_token_id
        real = len(rows)
        rows = rows or [without_loss(update.filler)]
        batch: Batch = collate(rows, pad_token_id=pad)
        batch["layout"] = layout(
            [torch.cat([row["prompt_ids"], row["completion_ids"]]) for row in rows],
            [len(row["completion_ids"]) for row in rows],
            batch["completion_ids"].shape[1],
            pad_token_id=pad,
            packed=self.packed,
        )
        batch["row_count"], batch["step_tokens"], batch["step_rows"] = real, update.tokens, update.count
        return batch

    def groups(self, update: OptimizerStep) -> list[list[Row]]:
        """The rows of every pass of an optimizer step on this process."""
        groups = self._split(update.rows, update.budget)
        groups += [[]] * (update.passes - len(groups))
        return [[update.rows[row] for row in group] for group in groups]

    def _split(self, rows: list[Row], budget: int) -> list[list[int]]:
        return split_tokens([length(row) for row in rows], budget, packed=self.packed)

    def _attempt(self, model: Any, update: OptimizerStep) -> Tensor:
        accelerator = self.accelerator
        total = torch.zeros((), device=accelerator.device)
        groups = self.groups(update)
        for i, rows in enumerate(groups):
            last = i == len(groups) - 1
            with contextlib.nullcontext() if last else accelerator.no_sync(model):
                accelerator.gradient_state._set_sync_gradients(last)
                try:
                    total = total + self.trainer.backward(model, self.batch(update, rows))
                finally:
                    accelerator.gradient_state._set_sync_gradients(True)
        return total

    def _score(
        self, model: Any, sequences: list[Tensor], completions: list[int], rows: list[int], keep: int
    ) -> tuple[Tensor, Tensor | None]:
        where = layout(
            [sequences[row] for row in rows],
            [completions[row] for row in rows],
            keep,
            pad_token_id=self.trainer._tokenizer.pad_token_id,
            packed=self.packed,
        )
        with self.accelerator.autocast():
            return per_token(model, where)


def update_state(update: OptimizerStep) -> dict[str, Any]:
    """An update as plain data, for a checkpoint."""
    return vars(update)


def update_from_state(state: dict[str, Any], device: torch.device) -> OptimizerStep:
    rows = [to_device(row, device) for row in state["rows"]]
    return OptimizerStep(**{**state, "rows": rows, "filler": to_device(state["filler"], device)})
