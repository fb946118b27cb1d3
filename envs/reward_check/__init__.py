"""`check_reward_env`: whether a reward is paid for right answers and for nothing else.

check.py          the function, its settings and its report
examination.py    everything that is asked of an environment, and the evidence that comes back
probe_answers.py  PURE: the texts that it is asked with
persuasion.py     PURE: texts that are known to fool language models that judge
checks.py         PURE: the result that each check draws from the evidence
client.py         the environment in a subprocess, with a time limit on each request
worker.py         the subprocess's end: one method for each kind of request
episode.py        one episode there, and the faults of what the environment returned
openenv.py        the report in the form of OpenEnv's RFC 008
"""
