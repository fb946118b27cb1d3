"""Step 4: a rollout batch becomes optimizer steps.

schedule.py      groups dealt to optimizer steps and processes
batching.py      PURE: rows to microbatches, cut by tokens; `Microbatch`
microbatches.py  an optimizer step, microbatch by microbatch
memory_probe.py  `microbatch_tokens: auto`
logprobs.py      log-probabilities from forward passes with little padding
loss.py          the loss of a microbatch (`loss_type`)
token_means.py   metrics over the tokens of an optimizer step
"""
