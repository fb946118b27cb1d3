"""The records that travel from a prompt to the loss: `Outcome`, `Sampled`, `Rollout`, `Group`, `TrainingRow`.

One completion of ``math/Arithmetic-v0``, from record to record::

    Outcome(reward=1.0, accuracy=1.0, verdict="correct", components={"correct": 1.0}, turns=[1.0],
            turn_scores=[1.0], answer="579")
    Rollout(row={"prompt": "123+456", "index": 7}, prompt_ids=[9, 3, ...], completion_ids=[5, 2, ..., 1], order=12,
            tokens=31, account="trained", rewards=[1.0, 0.0], outcome=<the above>)
    Group(rewards=[[1.0, 0.0], [0.0, 0.0], ...], tokens=[31, 28, ...], accounts=["trained", ...], seconds=0.4, step=24,
          turns=[[1.0], [0.0], ...], turn_starts=[[0], [0], ...], rollouts=[<the above>, ...])
    TrainingRow(prompt_ids=[P], completion_ids=[T], completion_mask=[T], old_logps=[T], advantage=0.625)
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Outcome:
    """The judgement that an environment made of one episode."""

    reward: float
    """Sum over the episode; NaN if it cannot be scored."""
    accuracy: float
    """Raw correctness in [0, 1]; without one, the reward before shaping."""
    verdict: str
    components: dict[str, float]
    """The parts of the reward by name, each summed over the episode."""
    turns: list[float] = field(default_factory=list)
    """``[K]`` rewards of its turns, which sum to the reward; all NaN if it cannot be scored. The last has what comes at
    the end too: the verdict's reward and that of shaping wrappers."""
    turn_scores: list[float] = field(default_factory=list)
    """``[K]``: the same as the filter's ``accuracy`` sees it: rewards before shaping, and the accuracy, where there is
    one, in place of the last step's."""
    answer: str | None = None
    """The model's answer as the environment read it, by which votes are counted; None where it names none."""
    cause: str = ""
    """The reason, in words."""
    figures: dict[str, float] = field(default_factory=dict)
    """Numbers that the environment reports for the log, each summed over the episode."""


@dataclass
class Sampled:
    """The ``n`` completions that one process sampled in a round, in the order of its rows."""

    prompts: list[Any]
    """Text or chat messages, as the model saw them."""
    prompt_ids: list[list[int]]
    completion_ids: list[list[int]]
    completions: list[Any]
    """Text or chat messages, as reward functions get them."""
    truncated: list[bool]
    """Cut off at the length limit."""
    logprobs: list[list[float]] | None = None
    """By the sampler; None where it does not give them."""
    loss_masks: list[list[int]] | None = None
    """1 for the model's own tokens, 0 for foreign ones; None: all are its own."""
    turn_starts: list[list[int]] | None = None
    """The first token of each turn of the model; None: a completion is one turn."""
    outcomes: list[Outcome] | None = None
    """The environment's judgements; None without an environment, or as long as it has not judged."""
    columns: dict[str, Any] = field(default_factory=dict)
    """Further columns for reward functions: ``[n]`` values, or one for all."""

    @property
    def lengths(self) -> list[int]:
        """Tokens that the model wrote."""
        if self.loss_masks is None:
            return [len(ids) for ids in self.completion_ids]
        return [sum(mask) for mask in self.loss_masks]


@dataclass
class Rollout:
    """One judged completion. Token lists are unpadded."""

    row: dict[str, Any]
    """The row of the data that it answers."""
    prompt: Any
    completion: Any
    """Prompt and completion as text or chat messages, as reward functions get them."""
    prompt_ids: np.ndarray
    """``[P]`` int32, because rollouts travel between processes."""
    completion_ids: np.ndarray
    """``[T]`` int32."""
    order: int
    """Its place in the round over all processes; completions of one group are neighbours."""
    tokens: int
    """Tokens that the model wrote; an environment's replies are not counted."""
    account: str
    """Where the token ledger enters its tokens once its group is trained on; see `sampling.token_ledger.ACCOUNTS`."""
    logprobs: list[float] | None = None
    """``[T]`` log-probabilities of the sampler; None where it does not give them."""
    loss_mask: list[int] | None = None
    """``[T]``: 1 for the model's own tokens, 0 for foreign ones such as an environment's replies; None: all its own."""
    turn_starts: list[int] = field(default_factory=lambda: [0])
    """``[K]``: the first token of each turn of the model."""
    rewards: list[float] = field(default_factory=list)
    """``[F]``, one for each reward function; NaN where it does not apply."""
    outcome: Outcome | None = None
    """The environment's judgement; None without an environment."""
    log_columns: dict[str, Any] = field(default_factory=dict)
    """Values that reward functions logged for this completion (TRL's ``log_extra``)."""


@dataclass
class TrainingRow:
    """One completion as tensors without padding: ``P`` prompt tokens, ``T`` completion tokens."""

    prompt_ids: Tensor
    """``[P]``"""
    completion_ids: Tensor
    """``[T]``"""
    completion_mask: Tensor
    """``[T]``: 0 throughout for a completion that is masked altogether."""
    tool_mask: Tensor | None = None
    """``[T]``: 0 for foreign tokens; None: there are none."""
    old_logps: Tensor | None = None
    """``[T]`` log-probabilities under the policy that sampled it, by the trainer; None: the policy has not moved."""
    ref_logps: Tensor | None = None
    """``[T]`` log-probabilities under the reference model; None without a KL penalty."""
    sampling_logps: Tensor | None = None
    """``[T]`` log-probabilities by the sampler (vLLM)."""
    sampling_ratio: Tensor | None = None
    """``[T]``: the weight of a token's gradient, for a sampler whose probabilities differ from the trainer's."""
    advantage: Tensor | None = None
    """Scalar, or ``[T]`` where each turn has its own; None until the whole rollout batch is known."""
    masked_tokens: int = 0
    """Tokens that the model wrote of a completion that is masked altogether, else 0."""
    sample: int = -1
    """Its number among the rollouts that are being recorded; -1: it is not recorded."""

    @property
    def loss_mask(self) -> Tensor:
        """``[T]``: 1 for the tokens that the loss counts."""
        return self.completion_mask if self.tool_mask is None else self.completion_mask * self.tool_mask

    @property
    def length(self) -> int:
        """Tokens, prompt and completion."""
        return len(self.prompt_ids) + len(self.completion_ids)

    def without_loss(self) -> TrainingRow:
        """The row with nothing that the loss counts. It keeps a process that has run out of rows in step with the
        others: it takes part in the forward pass and adds nothing to the gradient."""
        return replace(self, completion_mask=torch.zeros_like(self.completion_mask), masked_tokens=0, sample=-1)

    def to(self, device: torch.device | str) -> TrainingRow:
        return replace(self, **{name: value.to(device) for name, value in self.tensors().items()})

    def detached(self) -> TrainingRow:
        """A copy on the CPU, as small as its own tensors."""
        return replace(self, **{name: value.detach().cpu().clone() for name, value in self.tensors().items()})

    def tensors(self) -> dict[str, Any]:
        """The tensors that are there, by field."""
        found = {item.name: getattr(self, item.name) for item in fields(self)}
        return {name: value for name, value in found.items() if isinstance(value, Tensor)}

    def state_dict(self) -> dict[str, Any]:
        return {**self.tensors(), "masked_tokens": self.masked_tokens, "sample": self.sample}


@dataclass
class Group:
    """The ``G`` completions of one prompt: fresh from their round, or kept from an earlier one as surplus."""

    rewards: list[list[float]]
    """``[G][F]``"""
    tokens: list[int]
    """``[G]`` tokens generated."""
    accounts: list[str]
    """``[G]``: where the ledger enters them once the group is trained on."""
    seconds: float
    """Seconds of generating and scoring it: its share of its round, by tokens."""
    step: int
    """Optimizer steps taken when it was sampled."""
    source: str = ""
    """Name of the environment or part of the data that its prompt comes from."""
    turns: list[list[float]] = field(default_factory=list)
    """``[G][K]`` rewards of the turns of each; ``K`` is 0 without an environment."""
    turn_starts: list[list[int]] = field(default_factory=list)
    """``[G][K]``: the first token of each turn of the model."""
    rollouts: list[Rollout] = field(default_factory=list)
    """``[G]`` while it is fresh; empty once it is kept as surplus."""
    rows: list[TrainingRow] = field(default_factory=list)
    """``[G]`` once it is kept as surplus, with the log-probabilities of the policy that sampled it; empty before."""

    @classmethod
    def of(cls, rollouts: list[Rollout], *, seconds: float, step: int, source: str = "") -> Group:
        """A fresh group of completions in their order."""
        return cls(
            rewards=[rollout.rewards for rollout in rollouts],
            tokens=[rollout.tokens for rollout in rollouts],
            accounts=[rollout.account for rollout in rollouts],
            turns=[[] if rollout.outcome is None else rollout.outcome.turns for rollout in rollouts],
            turn_starts=[rollout.turn_starts for rollout in rollouts],
            seconds=seconds,
            step=step,
            source=source,
            rollouts=rollouts,
        )

    def kept(self, rows: list[TrainingRow]) -> Group:
        """The group as it waits for a later rollout batch: its tensors in place of its texts."""
        return replace(self, rollouts=[], rows=rows)

    def state_dict(self) -> dict[str, Any]:
        """Plain data and tensors, for a checkpoint."""
        plain = asdict(replace(self, rollouts=[], rows=[]))
        return {**plain, "rows": [row.state_dict() for row in self.rows]}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Group:
        return cls(**{**state, "rows": [TrainingRow(**row) for row in state["rows"]]})
