"""A factored softmax policy over discrete choices, trained with REINFORCE; nothing here touches an environment."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

Choice = tuple[int, ...]
"""The option taken of each factor."""
_EXPLORE = 0.3  # share of the draws that follow the prior
_RATE = 0.5  # step of the logits
_NEGLIGIBLE = 1e-6  # a step that is left out
_MEMORY = 0.98  # of the running mean that serves as baseline


@dataclass
class Tally:
    """How often a choice was taken, and what it earned in all."""

    count: int = 0
    earned: float = 0.0

    @property
    def score(self) -> float:
        """The mean reward, shrunk towards zero while there are few trials."""
        return self.earned / (self.count + 2)


class Policy:
    """An independent softmax over the options of each factor.

    Args:
        priors: For each factor the weights of its options before anything is learnt, all above zero.
        seed: Decides every draw.
    """

    def __init__(self, priors: Sequence[Sequence[float]], seed: int) -> None:
        self._priors = [list(weights) for weights in priors]
        self._logits = [[math.log(weight) for weight in weights] for weights in priors]
        self._weights = [_softmax(logits) for logits in self._logits]
        self._generator = random.Random(seed)
        self._baseline = 0.0
        self.tallies: dict[Choice, Tally] = {}

    def draw(self) -> Choice:
        """Return a choice, mostly of the policy and sometimes of the prior, so that exploring never ends."""
        explore = self._generator.random() < _EXPLORE
        weights = self._priors if explore else self._weights
        return tuple(self._generator.choices(range(len(some)), some)[0] for some in weights)

    def learn(self, choice: Choice, reward: float) -> None:
        """Take a step along `reward`, which is in [0, 1], above the mean of the rewards before."""
        tally = self.tallies.setdefault(choice, Tally())
        tally.count += 1
        tally.earned += reward
        step = _RATE * (reward - self._baseline)
        if abs(step) > _NEGLIGIBLE:
            for option, logits, weights in zip(choice, self._logits, self._weights, strict=True):
                for other, probability in enumerate(weights):
                    logits[other] += step * ((other == option) - probability)
            self._weights = [_softmax(logits) for logits in self._logits]
        self._baseline = _MEMORY * self._baseline + (1 - _MEMORY) * reward

    def best(self, count: int) -> list[Choice]:
        """Return the `count` choices that earned most, one for each option of the first factor that earned anything."""
        paid = [(choice, tally) for choice, tally in self.tallies.items() if tally.earned > 0]
        ranked = [choice for choice, _ in sorted(paid, key=lambda item: (-item[1].score, item[0]))]
        firsts = {choice[0]: choice for choice in reversed(ranked)}
        return [choice for choice in ranked if firsts[choice[0]] == choice][:count]


def _softmax(logits: Sequence[float]) -> list[float]:
    top = max(logits)
    weights = [math.exp(logit - top) for logit in logits]
    total = sum(weights)
    return [weight / total for weight in weights]
