"""What a run will do and whether it fits, before anything is loaded: ``dapo-trl plan``.

devices.py   cards and their memory; how many there are and how a model is spread over them
trace.py     a model without data: its parameters counted, the memory of its passes measured
memory.py    PURE: bytes of everything a device holds, part by part
estimate.py  a run's settings in those formulas
refill.py    how much dynamic sampling generates, by the code that samples
schedule.py  steps, rollout batches, tokens, time; calibration by a run that has ended
planner.py   the task, and a plan put together of all these
cautions.py  what will go wrong though the run fits
remedies.py  changes that would help most, by planning again with each
show.py      a plan as text and as JSON
"""
