"""The trend of a series of logged values, with an interval that allows for their autocorrelation."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

LEAST_VALUES = 6
"""Fewest values from which a trend is more than luck."""
_LEAST_INDEPENDENT = 5.0


@dataclass(frozen=True)
class Trend:
    """The rise of a straight line through a series, from its first value to its last."""

    rise: float
    low: float
    high: float
    """Ends of its 95 % confidence interval."""

    @classmethod
    def of(cls, values: np.ndarray) -> Trend:
        """Least squares; neighbours that resemble each other count as fewer values (Santer et al. 2000).

        The residuals' lag-1 autocorrelation, corrected for its bias in short series, gives the number of independent
        values. That number sets the error of the slope and the degrees of freedom of Student's t.

        Args:
            values: ``[n]`` with ``n`` at least `LEAST_VALUES`, evenly spaced.
        """
        count = len(values)
        places = np.arange(count) - (count - 1) / 2
        slope = float(places @ values / (places @ places))
        residuals = values - values.mean() - slope * places
        squares = float(residuals @ residuals)
        if squares <= 1e-18 * count:
            return cls(slope * (count - 1), slope * (count - 1), slope * (count - 1))
        found = float(residuals[1:] @ residuals[:-1]) / squares
        alike = min(max(found + (2 + 4 * found) / count, 0.0), 0.95)
        independent = max(count * (1 - alike) / (1 + alike), _LEAST_INDEPENDENT)
        error = math.sqrt(squares / (independent - 2) / float(places @ places))
        half = student_quantile(0.975, independent - 2) * error * (count - 1)
        rise = slope * (count - 1)
        return cls(rise, rise - half, rise + half)

    def __str__(self) -> str:
        return f"{self.rise:+.3f}, 95 % interval {self.low:+.3f} to {self.high:+.3f}"


def student_quantile(level: float, degrees: float) -> float:
    """Quantile of Student's t distribution, by its expansion around the normal one (Abramowitz & Stegun 26.7.5)."""
    z = NormalDist().inv_cdf(level)
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return z + sum(term / degrees**power for power, term in enumerate(terms, 1))
