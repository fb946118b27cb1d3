"""Step 3: groups become a rollout batch (dynamic sampling).

collector.py     rounds of sampling until the batch is full; read `_round`
group_filter.py  PURE: which groups are kept, when to sample again, when the data are solved
surplus.py       informative groups beyond a full batch, kept for the next
token_ledger.py  an account for every generated token
statistics.py    a round in numbers
state.py         all of it that a checkpoint holds
"""
