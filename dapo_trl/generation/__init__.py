"""Step 2a: how tokens are sampled.

transformers.py  `generate` in this process; rows that have ended leave the batch
seeded.py        the same with random numbers of each sample's own, for measurements
vllm.py          vLLM in this process or in a server
"""
