"""Step 4: a rollout batch becomes optimizer steps.

schedule.py      groups dealt to optimizer steps and processes
batching.py      PURE: rows to microbatches, cut by tokens; `Microbatch`
packing.py       the cut and the layout that a model's attention allows
microbatches.py  an optimizer step, microbatch by microbatch
precision.py     `cpu_precision: auto`
memory_probe.py  `microbatch_tokens: auto`
attention.py     attention over rows that share what they begin with
logprobs.py      log-probabilities from forward passes with little padding
lm_head.py       PURE: TRL's language-model head in fewer passes, without Triton
mismatch.py      PURE: the correction for vLLM's probabilities, and what it is expected to cost
mismatch_check.py   how far vLLM is from the trainer, and that pushed weights reach it
loss.py          the loss of a microbatch (`loss_type`)
gradient_ledger.py  the shares of the gradient weight that act, and that are lost
token_means.py   metrics over the tokens of an optimizer step
"""
