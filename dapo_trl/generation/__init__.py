"""Step 2a: how tokens are sampled, one file for each backend behind one protocol.

params.py        the protocol `GenerationBackend`, and the settings that a backend gets
transformers.py  `generate` in this process, for training and for measurements
decoding.py      its loop: every prompt is read once, rows that have ended leave the batch
vllm.py          vLLM in this process or in a server: training, measurements, and the adapters that it can serve
seeded.py        random numbers of each completion's own
"""
