"""`algorithm.py` against numbers worked out by hand and against a float64 loop written straight from the formulas."""

from __future__ import annotations

import math

import pytest
import torch

from dapo_trl.algorithm import (
    aggregate_loss,
    clipped_surrogate,
    decoupled_advantages,
    group_advantages,
    importance_ratio,
    informative_groups,
    kl_estimate,
    returns_to_go,
    token_advantages,
    turn_advantages,
)

NAN = float("nan")


class TestGroupAdvantages:
    def test_textbook_subtracts_the_mean_only(self):
        found = group_advantages(torch.tensor([1.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 0.0]), 4)
        assert found.tolist() == [0.75, -0.25, -0.25, -0.25, 0.25, 0.25, 0.25, -0.75]

    def test_paper_divides_by_the_unbiased_std_of_the_group(self):
        # mean 0.5, deviations +-0.5, variance (2 * 0.25) / (2 - 1) = 0.5
        found = group_advantages(torch.tensor([1.0, 0.0]), 2, scale="group", eps=1e-4)
        assert found.tolist() == pytest.approx([0.5 / (math.sqrt(0.5) + 1e-4), -0.5 / (math.sqrt(0.5) + 1e-4)])

    def test_batch_scale_divides_by_the_std_of_all_rewards(self):
        # rewards 0, 2, 1, 1: mean 1, variance 2 / 3
        found = group_advantages(torch.tensor([0.0, 2.0, 1.0, 1.0]), 2, scale="batch", eps=0.0)
        assert found.tolist() == pytest.approx([-1 / math.sqrt(2 / 3), 1 / math.sqrt(2 / 3), 0.0, 0.0])

    def test_unscorable_rows_get_zero_and_do_not_move_the_mean(self):
        found = group_advantages(torch.tensor([1.0, NAN, 0.0, 0.5]), 4)
        assert found.tolist() == [0.5, 0.0, -0.5, 0.0]

    @pytest.mark.parametrize("scale", ["none", "group", "batch"])
    def test_a_group_of_nothing_but_unscorable_rows_is_all_zero(self, scale):
        assert group_advantages(torch.tensor([NAN, NAN]), 2, scale=scale).tolist() == [0.0, 0.0]

    @pytest.mark.parametrize("scale", ["none", "group"])
    def test_equal_rewards_give_zero(self, scale):
        found = group_advantages(torch.full((8,), 0.3), 8, scale=scale)
        assert found.abs().max() < 1e-3

    def test_errors_name_the_value(self):
        with pytest.raises(ValueError, match=r"\(5,\) and group_size is 2"):
            group_advantages(torch.zeros(5), 2)
        with pytest.raises(ValueError, match="'std'"):
            group_advantages(torch.zeros(4), 2, scale="std")


class TestTurns:
    """Two groups of three episodes, of up to three turns. What they earn, and from each turn on::

    1  2  3        6  5  3
    4              4
    0  1           1  1
    2  2           4  2
    0  1           1  1
    0 (NaN)        could not be scored
    """

    rewards = torch.tensor([[1, 2, 3], [4, NAN, NAN], [0, 1, NAN], [2, 2, NAN], [0, 1, NAN], [NAN, NAN, NAN]])
    returns = torch.tensor([[6, 5, 3], [4, NAN, NAN], [1, 1, NAN], [4, 2, NAN], [1, 1, NAN], [NAN, NAN, NAN]])

    def test_a_return_is_what_is_earned_from_a_turn_on(self):
        torch.testing.assert_close(returns_to_go(self.rewards), self.returns, equal_nan=True)

    def test_a_turn_is_compared_with_the_same_turn_of_the_others_that_have_it(self):
        third = 11 / 3  # (6 + 4 + 1) / 3; at the second turn (5 + 1) / 2 = 3 and (2 + 1) / 2 = 1.5
        expected = [[6 - third, 2, 0], [4 - third, 0, 0], [1 - third, -2, 0], [1.5, 0.5, 0], [-1.5, -0.5, 0], [0, 0, 0]]
        torch.testing.assert_close(turn_advantages(self.returns, 3), torch.tensor(expected))

    def test_all_turns_share_one_standard_deviation(self):
        # squares by turn 114/9 + 8 + 0 of 2 + 1 + 0, 4.5 + 0.5 of 1 + 1; in the batch 18.8 + 10.75 + 0 of 4 + 3 + 0
        plain = turn_advantages(self.returns, 3)
        group = turn_advantages(self.returns, 3, scale="group", eps=0.0)
        torch.testing.assert_close(group[:3], plain[:3] / math.sqrt(62 / 9))
        torch.testing.assert_close(group[3:], plain[3:] / math.sqrt(2.5))
        batch = turn_advantages(self.returns, 3, scale="batch", eps=0.0)
        torch.testing.assert_close(batch, plain / math.sqrt(29.55 / 7))

    @pytest.mark.parametrize("scale", ["group", "batch"])
    def test_noise_at_a_late_turn_stays_small_and_equal_totals_stay_finite(self, scale):
        late = torch.tensor([[1.001, 0.001], [1.0, 0.0], [0.0, NAN], [0.0, NAN]])
        found = turn_advantages(late, 4, scale=scale)
        assert found[:, 0].abs().min() > 0.5 and 0 < found[:, 1].abs().max() < 0.002
        assert turn_advantages(torch.tensor([[1.0, 0.0], [1.0, 1.0]]), 2, scale=scale).abs().max() < 2

    @pytest.mark.parametrize("scale", ["none", "group", "batch"])
    def test_one_turn_has_the_advantage_of_the_episode(self, scale):
        found = turn_advantages(self.returns[:, :1], 3, scale=scale)
        torch.testing.assert_close(found[:, 0], group_advantages(self.returns[:, 0], 3, scale=scale))

    def test_a_token_has_the_advantage_of_its_turn(self):
        found = token_advantages(torch.tensor([0.5, -1.0, 9.0]), torch.tensor([0, 3]), 6)
        assert found.tolist() == [0.5, 0.5, 0.5, -1.0, -1.0, -1.0]

    def test_equal_totals_of_other_turns_are_a_signal(self):
        turns = torch.tensor([[[1, 0], [0, 1]], [[1, 0], [1, 0]], [[NAN, NAN], [1, NAN]]])
        to_go = returns_to_go(turns.view(6, 2)).view(3, 2, 2)
        assert informative_groups(to_go).tolist() == [True, False, False]
        assert informative_groups(to_go[..., 0]).tolist() == [False, False, False]

    def test_each_token_is_clipped_by_its_own_advantage(self):
        ratio, advantages = torch.tensor([[1.5, 1.5, 0.5, 0.5]]), torch.tensor([[1.0, -1.0, 1.0, -1.0]])
        loss, low, high = clipped_surrogate(ratio, advantages)
        torch.testing.assert_close(loss, torch.tensor([[-1.28, 1.5, -0.5, 0.8]]))
        assert (low.tolist(), high.tolist()) == ([[False, False, False, True]], [[True, False, False, False]])


class TestInformativeGroups:
    ROWS = torch.tensor(
        [
            [0.0, 0.0, 0.0, 0.0],  # all wrong
            [1.0, 1.0, 1.0, 1.0],  # all correct
            [0.0, 1.0, 0.0, 0.0],  # mixed
            [0.3, 0.3, 0.3, 0.3],  # constant
            [NAN, NAN, NAN, NAN],  # unscorable
            [NAN, 1.0, 1.0, 1.0],  # all correct, as far as is known
            [NAN, 1.0, 0.0, 1.0],  # mixed, as far as can be told
            [-1.0, -1.0, -1.0, -1.0],
        ]
    )

    def test_zero_variance_keeps_groups_that_differ(self):
        assert informative_groups(self.ROWS).tolist() == [
            False,
            False,
            True,
            False,
            False,
            False,
            True,
            False,
        ]

    def test_all_zero_is_the_literal_rule(self):
        found = informative_groups(self.ROWS, rule="all_zero").tolist()
        assert found == [False, True, True, True, False, True, True, True]

    def test_equal_values_whose_float32_std_is_not_zero_are_not_informative(self):
        scores = torch.full((1, 8), 0.3) + torch.tensor([[0.0, 3e-8] * 4])
        assert not informative_groups(scores).item()

    def test_unknown_rule(self):
        with pytest.raises(ValueError, match="'some'"):
            informative_groups(self.ROWS, rule="some")


class TestImportanceRatio:
    LOGPS = torch.log(torch.tensor([[0.5, 0.2, 0.9], [0.1, 0.1, 0.1]]))
    OLD = torch.log(torch.tensor([[0.25, 0.4, 0.1], [0.1, 0.2, 0.1]]))
    MASK = torch.tensor([[1, 1, 0], [1, 1, 1]])

    def test_token_level_is_one_ratio_per_token_and_one_where_masked(self):
        found = importance_ratio(self.LOGPS, self.OLD, self.MASK)
        assert found.flatten().tolist() == pytest.approx([2.0, 0.5, 1.0, 1.0, 0.5, 1.0])

    def test_sequence_level_is_the_product_over_tokens(self):
        found = importance_ratio(self.LOGPS, self.OLD, self.MASK, level="sequence")
        assert found.shape == (2, 1)
        assert found.flatten().tolist() == pytest.approx([2.0 * 0.5, 0.5])

    def test_padding_cannot_poison_the_ratio(self):
        old = self.OLD.clone()
        old[0, 2] = -torch.inf
        assert importance_ratio(self.LOGPS, old, self.MASK, level="sequence").isfinite().all()

    @pytest.mark.parametrize("level", ["token", "sequence"])
    def test_a_huge_ratio_is_clipped_without_a_nan_gradient(self, level):
        logps = torch.full((1, 1000), 0.1, requires_grad=True)
        ratio = importance_ratio(logps * 2000, torch.zeros(1, 1000), torch.ones(1, 1000), level=level)
        clipped_surrogate(ratio, torch.tensor([1.0]))[0].sum().backward()
        assert logps.grad.abs().max() == 0.0


class TestClippedSurrogate:
    def test_positive_advantage_is_capped_above_only(self):
        ratio = torch.tensor([[0.1, 1.0, 1.27, 1.5]])
        loss, low, high = clipped_surrogate(ratio, torch.tensor([2.0]), epsilon_low=0.2, epsilon_high=0.28)
        assert loss.flatten().tolist() == pytest.approx([-0.2, -2.0, -2.54, -2.56])
        assert low.flatten().tolist() == [False] * 4
        assert high.flatten().tolist() == [False, False, False, True]

    def test_negative_advantage_is_floored_below_only(self):
        ratio = torch.tensor([[0.1, 0.79, 1.0, 3.0]])
        loss, low, high = clipped_surrogate(ratio, torch.tensor([-1.0]))
        assert loss.flatten().tolist() == pytest.approx([0.8, 0.8, 1.0, 3.0])
        assert low.flatten().tolist() == [True, True, False, False]
        assert high.flatten().tolist() == [False] * 4

    def test_equal_to_ppos_min_form_everywhere(self):
        ratio = torch.linspace(0.01, 3, 200).repeat(3, 1)
        advantages = torch.tensor([1.7, -0.4, 0.0])
        loss, _, _ = clipped_surrogate(ratio, advantages, epsilon_low=0.2, epsilon_high=0.28)
        a = advantages[:, None]
        assert torch.equal(loss, -torch.min(ratio * a, ratio.clamp(0.8, 1.28) * a))

    def test_no_gradient_flows_through_a_clipped_token(self):
        ratio = torch.tensor([[1.5, 1.1], [0.5, 0.9]], requires_grad=True)
        clipped_surrogate(ratio, torch.tensor([1.0, -1.0]))[0].sum().backward()
        assert ratio.grad.tolist() == [[0.0, -1.0], [0.0, 1.0]]

    def test_grpo_is_the_symmetric_case(self):
        loss, _, high = clipped_surrogate(
            torch.tensor([[1.25]]), torch.tensor([1.0]), epsilon_low=0.2, epsilon_high=0.2
        )
        assert loss.item() == pytest.approx(-1.2) and high.item()


def test_kl_estimate_by_hand():
    # reference twice as likely: d = ln 2, e^d - d - 1 = 1 - ln 2
    found = kl_estimate(torch.log(torch.tensor([[0.1, 0.2]])), torch.log(torch.tensor([[0.2, 0.2]])))
    assert found.flatten().tolist() == pytest.approx([1 - math.log(2), 0.0], abs=1e-6)


def test_kl_estimate_with_an_importance_ratio_is_unbiased_for_another_samplers_tokens():
    """Exactly, on three tokens: the expectation under the sampler of ratio * k3 is KL(policy || reference)."""
    policy, reference, sampler = (torch.tensor([p]) for p in ([0.5, 0.3, 0.2], [0.2, 0.3, 0.5], [0.1, 0.6, 0.3]))
    ratio = policy / sampler
    found = (sampler * kl_estimate(policy.log(), reference.log(), ratio=ratio)).sum()
    assert found.item() == pytest.approx((policy * (policy / reference).log()).sum().item(), rel=1e-5)


class TestAggregateLoss:
    LOSS = torch.tensor([[1.0, 2.0, 3.0, 4.0], [10.0, 99.0, 99.0, 99.0]])
    MASK = torch.tensor([[1, 1, 1, 1], [1, 0, 0, 0]])

    def test_token_level_weighs_every_token_alike(self):
        assert aggregate_loss(self.LOSS, self.MASK).item() == pytest.approx(20 / 5)

    def test_sequence_level_is_the_mean_of_means(self):
        assert aggregate_loss(self.LOSS, self.MASK, mode="sequence").item() == pytest.approx((2.5 + 10) / 2)

    @pytest.mark.parametrize(("mode", "normalizer"), [("token", 5), ("sequence", 2)])
    def test_parts_with_the_normalizer_of_the_whole_add_up_to_the_whole(self, mode, normalizer):
        whole = aggregate_loss(self.LOSS, self.MASK, mode=mode)
        parts = [
            aggregate_loss(self.LOSS[i : i + 1], self.MASK[i : i + 1], mode=mode, normalizer=normalizer)
            for i in range(2)
        ]
        assert sum(parts).item() == pytest.approx(whole.item())

    def test_an_empty_mask_is_zero_and_not_nan(self):
        for mode in ("token", "sequence"):
            assert aggregate_loss(self.LOSS, torch.zeros_like(self.MASK), mode=mode).item() == 0.0

    def test_a_masked_nan_stays_out(self):
        loss = self.LOSS.clone()
        loss[1, 2] = NAN
        assert aggregate_loss(loss, self.MASK).item() == pytest.approx(4.0)

    def test_unknown_mode(self):
        with pytest.raises(ValueError, match="'mean'"):
            aggregate_loss(self.LOSS, self.MASK, mode="mean")


VARIANTS = {
    "textbook": {"scale": "none", "level": "token", "mode": "token", "low": 0.2, "high": 0.28},
    "paper": {"scale": "group", "level": "token", "mode": "token", "low": 0.2, "high": 0.28},
    "grpo": {"scale": "group", "level": "token", "mode": "sequence", "low": 0.2, "high": 0.2},
    "sequence ratio": {"scale": "none", "level": "sequence", "mode": "token", "low": 0.2, "high": 0.28},
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_whole_loss_against_a_float64_loop(variant):
    """Formulas (8) to (12) once more, token by token in Python floats."""
    v = VARIANTS[variant]
    generator = torch.Generator().manual_seed(7)
    groups, size, width = 3, 4, 6
    rows = groups * size
    logps = -torch.rand(rows, width, generator=generator, dtype=torch.float64) * 3
    old = logps + 0.5 * torch.randn(rows, width, generator=generator, dtype=torch.float64)
    lengths = torch.randint(1, width + 1, (rows,), generator=generator)
    mask = (torch.arange(width) < lengths[:, None]).int()
    rewards = torch.randint(0, 2, (rows,), generator=generator).double()

    ratio = importance_ratio(logps, old, mask, level=v["level"])
    advantages = group_advantages(rewards, size, scale=v["scale"])
    loss, _, _ = clipped_surrogate(ratio, advantages, epsilon_low=v["low"], epsilon_high=v["high"])
    found = aggregate_loss(loss.expand(rows, width), mask, mode=v["mode"]).item()

    per_row = []
    for i in range(rows):
        group = [float(r) for r in rewards[i // size * size : (i // size + 1) * size]]
        mean = sum(group) / size
        advantage = float(rewards[i]) - mean
        if v["scale"] == "group":
            advantage /= math.sqrt(sum((r - mean) ** 2 for r in group) / (size - 1)) + 1e-4
        n = int(lengths[i])
        product = math.exp(sum(float(logps[i, t] - old[i, t]) for t in range(n)))
        row = []
        for t in range(n):
            r = product if v["level"] == "sequence" else math.exp(float(logps[i, t] - old[i, t]))
            bounded = min(r, 1 + v["high"]) if advantage >= 0 else max(r, 1 - v["low"])
            row.append(-bounded * advantage)
        per_row.append(row)
    if v["mode"] == "token":
        expected = sum(map(sum, per_row)) / sum(map(len, per_row))
    else:
        expected = sum(sum(row) / len(row) for row in per_row) / rows
    assert found == pytest.approx(expected, rel=1e-12)


def shaped(*size):
    return torch.zeros(size)


N, T = 4, 3


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: group_advantages(shaped(N, 1), 2), "rewards has shape (4, 1)"),
        (lambda: group_advantages(shaped(N), 3), "rewards has shape (4,)"),
        (lambda: decoupled_advantages(shaped(N), shaped(1), 2), "rewards has shape (4,): expected [N, F]"),
        (lambda: decoupled_advantages(shaped(N, 2), shaped(3), 2), "weights has shape (3,): expected [F], 2 rows"),
        (lambda: decoupled_advantages(shaped(N, 2), shaped(2), 3), "rewards has 4 rows and group_size is 3"),
        (lambda: returns_to_go(shaped(N)), "rewards has shape (4,): expected [N, K]"),
        (lambda: turn_advantages(shaped(N), 2), "returns has shape (4,): expected [N, K]"),
        (lambda: turn_advantages(shaped(N, T), 3), "rewards has shape (4,) and group_size is 3"),
        (lambda: token_advantages(shaped(1, 2), shaped(1), 3), "advantages has shape (1, 2): expected [K]"),
        (lambda: token_advantages(shaped(1), torch.tensor([0, 2]), 3), "starts is [0, 2] and advantages has 1 turns"),
        (lambda: token_advantages(shaped(2), torch.tensor([1]), 3), "starts is [1] and advantages has 2 turns"),
        (lambda: informative_groups(shaped(N)), "scores has shape (4,): expected [B, G]"),
        (lambda: importance_ratio(shaped(N), shaped(N), shaped(N)), "logps has shape (4,): expected [N, T]"),
        (lambda: importance_ratio(shaped(N, T), shaped(1, T), shaped(N, T)), "old_logps has shape (1, 3)"),
        (lambda: importance_ratio(shaped(N, T), shaped(N, T), shaped(N, 1)), "mask has shape (4, 1)"),
        (lambda: clipped_surrogate(shaped(N, T), shaped(N, 1)), "advantages has shape (4, 1): expected [N, T]"),
        (lambda: clipped_surrogate(shaped(N, T), shaped(1)), "advantages has shape (1,): expected [N], 4 rows"),
        (lambda: clipped_surrogate(shaped(N), shaped(N)), "ratio has shape (4,): expected [N, T] or [N, 1]"),
        (lambda: kl_estimate(shaped(N, T), shaped(N, 1)), "ref_logps has shape (4, 1)"),
        (lambda: kl_estimate(shaped(N, T), shaped(N, T), ratio=shaped(1, T)), "ratio has shape (1, 3)"),
        (lambda: aggregate_loss(shaped(N, T), shaped(N)), "mask has shape (4,): expected [N, T]"),
        (lambda: aggregate_loss(shaped(N), shaped(N, T)), "loss has shape (4,): expected [N, T] or [N, 1]"),
        (lambda: aggregate_loss(shaped(1, T), shaped(N, T)), "loss has shape (1, 3)"),
    ],
)
def test_a_wrong_rank_is_an_error_and_never_a_broadcast(call, named):
    with pytest.raises(ValueError) as error:
        call()
    assert str(error.value).startswith(named)


def test_one_ratio_for_a_whole_completion_is_no_wrong_rank():
    ratio = importance_ratio(shaped(N, T), shaped(N, T), torch.ones(N, T), level="sequence")
    loss, low, high = clipped_surrogate(ratio, torch.ones(N))
    assert ratio.shape == loss.shape == low.shape == high.shape == (N, 1)
    assert aggregate_loss(loss, torch.ones(N, T)) == -1.0
    assert kl_estimate(shaped(N, T), shaped(N, T), ratio=ratio).shape == (N, T)
