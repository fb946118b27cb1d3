"""The check of vLLM as a run begins: how far its probabilities are from the trainer's, and that pushes arrive.

Let ``s`` be the spread of the sampler's log-probabilities around the trainer's, on tokens just sampled. A few of the
first completions are kept. Once the weights have changed, they are scored again: ``u`` is the spread of their new
log-probabilities around the old ones, the size of the update. A sampler with the new weights has the same ``s`` as
before; one that kept the old weights differs from the trainer by the update too: its ``s`` is of the size of ``u``,
or some part of it, because an update moves the completions that it was made from more than others. The verdict is the
nearer of the two by their ratio. As long as ``u`` is too small to see beside ``s``, the question is put off to the next
rollout batch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from ..config import DAPOConfig
from ..errors import ConfigError
from . import mismatch
from .batching import Microbatch

KEPT_ROWS = 8
"""Completions of each process that are scored again."""
CLEAR = 2.0
"""Multiple of ``s`` from which the size of an update can be seen beside it."""
FAR = 0.1
"""``s`` in nats above which rounding cannot be the reason; that of bfloat16 makes less than half of it."""
UNBIASED = 0.02
"""Distance from 1 of the mean of p(trainer) / p(vLLM), from which vLLM has not sampled from the distribution that it
reports: if it has, the mean is 1, whatever its weights and its temperature."""
LEAST_UPDATE = 1e-3
"""Size of an update, in nats, below which nothing is concluded."""
LEAST_TOKENS = 100
"""Tokens below which no reason is looked for."""
UNRELATED, RELATED = 0.5, 0.95
"""Correlations of the two below which they are not of the same tokens, and above which they are of the same weights."""
OTHER_WIDTH = 0.08
"""Difference of the two spreads over tokens, as a share, from which temperatures differ."""
STALE = 0.1
"""Share of ``u`` that ``s`` must have grown by at least before the sampler is said to have the old weights."""


class MismatchCheck:
    """Takes in rollout batches until both questions are answered.

    Args:
        args: The settings of the run.
        accelerator: Its processes; all of them decide together.
        score: ``[N, T]`` log-probabilities of TRL's batch under the policy as it is.
        say: Prints a line.
        trained: The trained weights in words: "weights", or "adapter".
    """

    def __init__(
        self,
        args: DAPOConfig,
        accelerator: Accelerator,
        *,
        score: Callable[[dict[str, Any]], Tensor],
        say: Callable[[str], None],
        trained: str,
    ):
        self.args, self.accelerator = args, accelerator
        self._score, self._say, self._trained = score, say, trained
        self.done = not (args.use_vllm and args.mismatch_check)
        self._first: dict[str, Any] | None = None
        self._step, self._before = 0, 0.0

    def see(self, batch: dict[str, Any], step: int) -> None:
        """Take in a rollout batch.

        Args:
            batch: As TRL makes it, with the log-probabilities of both sides.
            step: Optimizer steps taken when it was sampled.

        Raises:
            ConfigError: The sampler still has the weights of the first batch.
        """
        if self.done:
            return
        found = Microbatch.from_trl(batch)
        assert found.old_logps is not None and found.sampling_logps is not None
        differences = found.old_logps - found.sampling_logps
        spread, tokens = self._spread(differences, found.loss_mask)
        if self._first is None:
            known = found.loss_mask.bool() & ~differences.isnan()
            reason = reason_of(found.old_logps[known].double(), found.sampling_logps[known].double(), spread)
            self._begin(batch, step, spread, tokens, reason)
        elif step > self._step:
            self._judge(step, spread)

    def _begin(self, batch: dict[str, Any], step: int, spread: float, tokens: int, reason: str) -> None:
        limit = self.args.max_completion_length
        asked = mismatch.asked(self.args)
        found = mismatch.expected(spread, limit, **asked)
        other = mismatch.expected(spread, limit, **{**asked, "mode": "token_truncate"})
        better = f"; token_truncate would keep {other.weight:.1%}" if other.weight > found.weight + 0.01 else ""
        self._say(
            f"vLLM and the trainer: log-probabilities differ by {spread:.2g} a token (standard deviation of "
            f"{tokens:,} tokens). At max_completion_length {limit}, mismatch_correction {asked['mode']} keeps "
            f"{found.weight:.1%} of the gradient, with an effective sample size of {found.sample_size:.1%}"
            f"{better}.{f' {reason}' if reason else ''}"
        )
        self._step, self._before = step, spread
        self._first = {
            name: value[:KEPT_ROWS].clone()
            for name, value in batch.items()
            if isinstance(value, Tensor) and value.dim() == 2
        }

    def _judge(self, step: int, spread: float) -> None:
        assert self._first is not None
        devices = [self.accelerator.device] if self.accelerator.device.type == "cuda" else []
        with torch.no_grad(), torch.random.fork_rng(devices=devices):
            moved = self._score(self._first) - self._first["old_per_token_logps"]
        mask = self._first["completion_mask"] * self._first.get("tool_mask", 1)
        update, _ = self._spread(moved, mask)
        if update < max(CLEAR * self._before, LEAST_UPDATE):
            return
        self.done, self._first = True, None
        figures = (
            f"the trainer's log-probabilities moved by {update:.2g} a token since step {self._step}, and vLLM's differ "
            f"from them by {spread:.2g}, where they differed by {self._before:.2g}"
        )
        if spread > (self._before * update) ** 0.5 and spread**2 - self._before**2 > (STALE * update) ** 2:
            raise ConfigError(
                f"step {step}: vLLM still samples with the {self._trained} of step {self._step}: {figures}. Its pushes "
                "do not arrive: look at the versions of vLLM and TRL and, with a server, at its log; mismatch_check "
                "false trains all the same."
            )
        self._say(f"step {step}: vLLM has the pushed {self._trained}: {figures}.")

    def _spread(self, differences: Tensor, mask: Tensor) -> tuple[float, int]:
        """Standard deviation over the tokens of all processes, and their number; unknown differences do not count."""
        values = differences[mask.bool() & ~differences.isnan()].double()
        sums = torch.stack([torch.ones_like(values).sum(), values.sum(), values.square().sum()])
        count, total, squares = self.accelerator.reduce(sums, reduction="sum").tolist()
        count = max(count, 1.0)
        return max(squares / count - (total / count) ** 2, 0.0) ** 0.5, int(count)


def reason_of(trainer: Tensor, sampler: Tensor, spread: float) -> str:
    """Why the two differ by more than rounding, in one sentence with what helps; empty where they do not.

    Args:
        trainer, sampler: ``[n]`` log-probabilities of the same tokens.
        spread: ``s``, over all processes.
    """
    if len(trainer) < LEAST_TOKENS:
        return ""
    differences = trainer - sampler
    ratios = differences.exp()
    ratio, error = float(ratios.mean()), 4 * float(ratios.std()) / len(ratios) ** 0.5
    biased = abs(ratio - 1) > UNBIASED + error
    if not (spread > FAR or biased):
        return ""
    correlation = float(torch.corrcoef(torch.stack([trainer, sampler]))[0, 1])
    sorted_spread = float((trainer.sort().values - sampler.sort().values).std())
    if correlation < UNRELATED and sorted_spread < spread / 4:
        return (
            f"They are the same numbers at other tokens (correlation {correlation:.2f}; sorted, they agree): vLLM's "
            "log-probabilities are out of place. Look at what hands them over: the versions of vLLM and TRL, or a "
            "rollout_func."
        )
    above, below = (float(part.clamp(min=0).mean()) for part in (differences, -differences))
    if biased and above < below / 20:
        return (
            f"vLLM's are the higher ones (p(trainer) / p(vLLM) is {ratio:.2f} on average, 1 is right): it samples from "
            "a truncated distribution. Set top_p 1, top_k 0 and no min_p, here and in the generation config that a "
            "server takes from the model (--generation-config vllm)."
        )
    width = float(sampler.std() / trainer.std())
    if correlation > RELATED and abs(width - 1) > OTHER_WIDTH:
        return (
            f"vLLM's are spread {width:.2f} times as far as the trainer's, token by token in the same order: they are "
            "of another temperature. Have vLLM sample at the trainer's (temperature) and report what it samples from "
            "(--logprobs-mode processed_logprobs)."
        )
    if spread > FAR:
        return "So much is not rounding: compare weights and dtype."
    return (
        f"p(trainer) / p(vLLM) is {ratio:.2f} on average, where 1 is right: vLLM reports other probabilities than it "
        "samples with. Compare its logits processors (repetition_penalty, generation_kwargs) and its logprobs mode."
    )
