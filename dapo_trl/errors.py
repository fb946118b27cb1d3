"""Errors a user can act on. Each message names what is wrong, the value, the rule and the fix.

DapoError
├── ConfigError          a setting, a file or a combination of settings (also a ValueError)
├── RewardError          a reward that cannot be used (also a ValueError)
├── RefillLimitError     dynamic sampling found too few informative groups (also a RuntimeError)
├── NonFiniteError       the loss or the gradient became NaN or infinite (also a RuntimeError)
├── DiskFullError        a file could not be written, the disk is full (also an OSError)
└── LostProcessError     another process of the run ended or hangs (also a RuntimeError)

The command line prints these as one line; anything else is a bug and keeps its traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from envs.text import one_line, place_of

__all__ = [
    "ConfigError",
    "DapoError",
    "DiskFullError",
    "LostProcessError",
    "NonFiniteError",
    "RefillLimitError",
    "RewardError",
    "did_you_mean",
    "one_line",
    "place_of",
]


class DapoError(Exception):
    """Base of every error that this package raises on purpose."""


class ConfigError(DapoError, ValueError):
    """A setting, a file or a combination of settings that cannot work."""


class RewardError(DapoError, ValueError):
    """A reward function or an environment returned something that is not a reward."""


class RefillLimitError(DapoError, RuntimeError):
    """Dynamic sampling reached ``max_refill_rounds`` with too few informative groups."""


class NonFiniteError(DapoError, RuntimeError):
    """The loss or the gradient norm became NaN or infinite; the weights are those of the step before."""


class DiskFullError(DapoError, OSError):
    """A file of the run could not be written, because the disk or a quota is full."""


class LostProcessError(DapoError, RuntimeError):
    """Another process of the run ended, or did not answer in time."""


def did_you_mean(word: str, known: Iterable[str], *, most: int = 1, cutoff: float = 0.6) -> str:
    """A hint at the nearest known words, with a space before it; empty when nothing is near."""
    near = difflib.get_close_matches(word, list(known), n=most, cutoff=cutoff)
    return f" Did you mean {' or '.join(near)}?" if near else ""
