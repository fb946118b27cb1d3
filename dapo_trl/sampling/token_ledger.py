"""The token ledger: an account for every use of a generated token, and the seconds spent on it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

MOSTLY_TRUNCATED = 0.5
"""Share of completions cut off at the limit from which that is the likely reason why they are wrong."""
ACCOUNTS = {
    "trained": "handed to the optimizer",
    "all_wrong": "group dropped: all wrong",
    "all_right": "group dropped: all correct",
    "constant": "group dropped: equal scores between 0 and 1",
    "shaping_only": "group dropped: equal scores; rewards differ by what the filter leaves out (the length penalty)",
    "truncated": "in a group trained on, masked because cut off at the limit (mask_truncated_completions)",
    "unscorable": "completions or whole groups without a score",
    "surplus_kept": "informative and not needed yet: waiting in the surplus buffer",
    "surplus_expired": "informative and never needed: too old for the surplus buffer, or one too many for it",
}
"""Every generated token is in exactly one of these accounts; those in `surplus_kept` move to another later."""


_LABELS = {
    "all_wrong": "all wrong",
    "all_right": "all correct",
    "shaping_only": "in groups all wrong or all correct but for what the filter leaves out (the length penalty)",
    "surplus_kept": "surplus kept",
    "surplus_expired": "surplus expired",
}


@dataclass
class Ledger:
    """Tokens and seconds by account. Nothing is lost: `tokens` always sums to all that was generated."""

    tokens: dict[str, int] = field(default_factory=lambda: dict.fromkeys(ACCOUNTS, 0))
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(ACCOUNTS, 0.0))
    """Seconds of generating and scoring; those of a round are shared out among its completions by their tokens."""

    def enter(self, account: str, tokens: int, seconds: float) -> None:
        self.tokens[account] += tokens
        self.seconds[account] += seconds

    def enter_rows(self, accounts: list[str], tokens: list[int], seconds: float) -> None:
        """Enter the completions of a group one by one; its seconds are shared out by tokens."""
        total = max(sum(tokens), 1)
        for account, count in zip(accounts, tokens, strict=True):
            self.enter(account, count, seconds * count / total)

    def __add__(self, other: Ledger) -> Ledger:
        return Ledger(
            {account: count + other.tokens[account] for account, count in self.tokens.items()},
            {account: spent + other.seconds[account] for account, spent in self.seconds.items()},
        )

    @property
    def generated(self) -> int:
        return sum(self.tokens.values())

    def metrics(self) -> dict[str, float]:
        """The accounts under the names of metrics."""
        return {
            "ledger/tokens": self.generated,
            **{f"ledger/{account}_tokens": count for account, count in self.tokens.items()},
            **{f"ledger/{account}_seconds": spent for account, spent in self.seconds.items()},
        }

    def shares(self) -> dict[str, float]:
        """Share of the generated tokens by account, the largest first; empty accounts are left out."""
        found = {account: count / self.generated for account, count in self.tokens.items() if count}
        return dict(sorted(found.items(), key=lambda item: -item[1]))

    def summary(self) -> str:
        """One sentence on the shares, in the words of `GroupCounts.summary`."""
        shares = ", ".join(f"{share:.1%} {_LABELS.get(name, name)}" for name, share in self.shares().items())
        return f"{self.generated:,} tokens generated in {sum(self.seconds.values()):,.0f} s: {shares}."

    def state_dict(self) -> dict[str, Any]:
        return {"tokens": dict(self.tokens), "seconds": dict(self.seconds)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.tokens, self.seconds = dict(state["tokens"]), dict(state["seconds"])
