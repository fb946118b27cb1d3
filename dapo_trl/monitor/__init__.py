"""Everything a person learns about a run while it runs.

metrics.py           every metric: definition, range; the documentation is made from it
metrics_file.py      metrics.jsonl, written and read
alarms.py            rules that find trouble in the newest logs
diagnosis.py         why a run learnt nothing
trend.py             the trend of a series, with its interval
callbacks.py         these as callbacks, and a clean stop on a signal
console.py           the progress bar and a line per step
trackers.py          metric names for TensorBoard and others
status.py            status.json: running, finished, or how it ended
rollout_recorder.py  a sample of the completions with their tokens
"""
