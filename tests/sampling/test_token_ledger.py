"""The ledger: what is entered is conserved, whatever becomes of it later."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dapo_trl.sampling.token_ledger import ACCOUNTS, Ledger

accounts = st.sampled_from(sorted(ACCOUNTS))


def test_the_seconds_of_a_group_are_shared_out_by_tokens():
    ledger = Ledger()
    ledger.enter_rows(["trained", "truncated", "trained"], [10, 30, 20], seconds=6.0)
    assert ledger.tokens["trained"] == 30 and ledger.tokens["truncated"] == 30 and ledger.generated == 60
    assert ledger.seconds["trained"] == pytest.approx(3.0) == ledger.seconds["truncated"]


def test_a_group_without_a_token_is_no_division_by_zero():
    ledger = Ledger()
    ledger.enter_rows(["trained", "trained"], [0, 0], seconds=1.0)
    assert ledger.generated == 0 and ledger.shares() == {}


def test_shares_are_of_what_was_met_the_largest_first():
    ledger = Ledger()
    for account, tokens in (("all_wrong", 25), ("trained", 70), ("all_right", 5)):
        ledger.enter(account, tokens, 0.0)
    assert list(ledger.shares().items()) == [("trained", 0.7), ("all_wrong", 0.25), ("all_right", 0.05)]


def test_the_sentence_agrees_with_the_counts_of_groups():
    """A group that only the length penalty tells apart is counted as all wrong: so the sentence names both."""
    ledger = Ledger()
    for account, tokens in (("all_wrong", 700), ("shaping_only", 272), ("trained", 28)):
        ledger.enter(account, tokens, 1.0)
    assert ledger.summary() == (
        "1,000 tokens generated in 3 s: 70.0% all wrong, 27.2% in groups all wrong or all correct but for what the "
        "filter leaves out (the length penalty), 2.8% trained."
    )


def test_a_account_that_is_none_is_refused():
    with pytest.raises(KeyError, match="forgotten"):
        Ledger().enter("forgotten", 1, 0.0)


@given(
    groups=st.lists(st.lists(st.tuples(accounts, st.integers(0, 10**6)), min_size=1, max_size=6), max_size=20),
    moves=st.lists(st.tuples(accounts, accounts, st.integers(0, 10**6)), max_size=10),
)
def test_tokens_and_seconds_are_conserved(groups, moves):
    ledger = Ledger()
    for rows in groups:
        ledger.enter_rows([account for account, _ in rows], [tokens for _, tokens in rows], seconds=0.25)
    for before, after, tokens in moves:
        ledger.enter(before, -tokens, -tokens / 8)
        ledger.enter(after, tokens, tokens / 8)
    assert ledger.generated == sum(tokens for rows in groups for _, tokens in rows)
    spent = 0.25 * sum(any(tokens for _, tokens in rows) for rows in groups)
    assert sum(ledger.seconds.values()) == pytest.approx(spent, abs=1e-6)


def test_a_checkpoint_brings_it_back_and_is_a_copy():
    ledger, again = Ledger(), Ledger()
    ledger.enter("trained", 5, 1.0)
    state = ledger.state_dict()
    ledger.enter("trained", 2, 1.0)
    again.load_state_dict(state)
    again.enter("all_wrong", 1, 0.0)
    assert again.tokens["trained"] == 5 and again.generated == 6
    assert state["tokens"]["all_wrong"] == 0 and state["seconds"]["trained"] == 1.0
