"""The correction for a sampler with other probabilities: by hand, by its closed form, and by sampling."""

from __future__ import annotations

import math

import pytest
import torch

from dapo_trl.update.mismatch import MODES, correction, expected

NAN = float("nan")


class TestCorrection:
    def of(self, mode, low=None, high=3.0):
        differences = torch.tensor([[0.5, 1.0, NAN, 9.0], [2.0, -1.0, -2.0, 0.0]])
        mask = torch.tensor([[1, 1, 1, 0], [1, 1, 1, 1]])
        return correction(differences, mask, mode, low=low, high=high)

    def test_each_mode_by_hand(self):
        e = math.exp
        rows = {
            "none": [[1, 1, 1, 1], [1, 1, 1, 1]],
            "token_truncate": [[e(0.5), e(1), 1, 1], [3, e(-1), e(-2), 1]],
            "token_mask": [[e(0.5), e(1), 1, 1], [0, e(-1), e(-2), 1]],
            "sequence_truncate": [[3] * 4, [e(-1)] * 4],
            "sequence_mask": [[0] * 4, [e(-1)] * 4],
            "geometric_mask": [[e(0.5)] * 4, [e(-0.25)] * 4],
        }
        assert list(rows) == list(MODES)
        for mode, wanted in rows.items():
            torch.testing.assert_close(self.of(mode), torch.tensor(wanted, dtype=torch.float32), msg=mode)

    def test_a_lower_bound(self):
        assert self.of("token_mask", low=0.2)[1].tolist() == pytest.approx([0, math.exp(-1), 0, 1])
        assert self.of("token_truncate", low=0.2)[1].tolist() == pytest.approx([3, math.exp(-1), 0.2, 1])
        assert self.of("geometric_mask", high=1.3)[1].tolist() == pytest.approx([math.exp(-0.25)] * 4)
        assert self.of("geometric_mask", high=1.2)[1].tolist() == [0] * 4
        assert self.of("token_truncate", high=None)[1, 0] == pytest.approx(math.exp(2))

    def test_an_unknown_mode_is_named(self):
        with pytest.raises(ValueError, match="mode is 'tokens': it must be one of none, token_truncate"):
            self.of("tokens")


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("spread", [0.005, 0.02, 0.05, 0.3])
@pytest.mark.parametrize("bounds", [(None, 3.0), (0.5, 2.0), (None, None)])
def test_the_closed_form_is_what_sampling_gives(mode, spread, bounds):
    generator = torch.Generator().manual_seed(1)
    low, high = bounds
    for tokens in (16, 256, 2048):
        if bounds == (None, None) and spread**2 * tokens > 0.1:
            continue  # the moments of such weights are made by completions that no sample of this size has
        rows = 2**21 // tokens
        draws = torch.randn(rows, tokens, generator=generator, dtype=torch.float64) * spread - spread**2 / 2
        weights = correction(draws, torch.ones_like(draws), mode, low=low, high=high)
        found = expected(spread, tokens, mode, low=low, high=high)
        error = 5 * float(weights.std()) / (rows if mode.startswith(("seq", "geo")) else rows * tokens) ** 0.5
        assert found.weight == pytest.approx(float(weights.mean()), abs=error + 1e-6)
        if found.weight > 0.3:
            assert found.sample_size == pytest.approx(float(weights.mean() ** 2 / (weights**2).mean()), rel=0.1)


def test_long_completions_lose_their_gradient_by_trls_default():
    weights = [expected(0.02, tokens, "sequence_mask", low=None, high=3.0).weight for tokens in (2048, 4096, 16384)]
    assert weights == pytest.approx([0.78, 0.59, 0.20], abs=0.01)
    for tokens in (2048, 16384, 10**6):
        assert expected(0.05, tokens, "token_truncate", low=None, high=3.0).weight == pytest.approx(1.0)
    assert expected(0.5, 16384, "sequence_mask", low=None, high=3.0) == (0.0, 0.0)
