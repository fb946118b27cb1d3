"""Step 3: groups become a rollout batch (dynamic sampling).

collector.py     rounds of sampling until the batch is full; read `_round`
group_filter.py  PURE: which groups are kept, when to sample again, when the data are solved
surplus.py       informative groups beyond a full batch, kept for the next
quotas.py        PURE: how many places of a batch each source gets, and which sources rest
sources.py       one environment, or one part of a data set, with its prompts, memory, surplus and ledger
token_ledger.py  an account for every generated token
statistics.py    a round in numbers
state.py         the sources together; what a checkpoint holds
"""
