"""What counts as a number."""

import math

import numpy as np
import pytest

from envs.numeric import is_count, is_number


@pytest.mark.parametrize("value", [0, -1.5, True, math.nan, np.float32(2), np.bool_(True), np.array(3.0)])
def test_numbers_of_any_library(value):
    assert is_number(value)


@pytest.mark.parametrize("value", [None, "1", b"1", math.inf, [1.0], np.array([1.0, 2.0]), 1j, 10**400], ids=repr)
def test_what_is_no_number(value):
    assert not is_number(value)


def test_counts():
    assert is_count(1) and is_count(0, least=0)
    assert not any(map(is_count, (0, -1, True, 1.0, "1", None)))
