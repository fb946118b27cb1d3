"""Errors a user can act on. Each message names what is wrong, the value, the rule and the fix.

DapoError
├── ConfigError          a setting, a file or a combination of settings (also a ValueError)
├── RewardError          a reward that cannot be used (also a ValueError)
├── RefillLimitError     dynamic sampling found too few informative groups (also a RuntimeError)
└── NonFiniteError       the loss or the gradient became NaN or infinite (also a RuntimeError)

The command line prints these as one line; anything else is a bug and keeps its traceback.
"""

from __future__ import annotations


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
