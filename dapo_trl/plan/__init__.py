"""What a run will do and whether it fits, before anything is loaded: ``dapo-trl plan``.

devices.py      cards and their memory; how many there are and how a model is spread over them
weights.py      parameters, counted on a model without data
trace.py        what passes keep in memory, from running them on tensors without data
memory.py       PURE: bytes of everything a device holds, part by part
estimate.py     what a run's settings put into these
task.py         what the environment says of its rows and prompts
refill.py       how much dynamic sampling generates, by the code that samples
schedule.py     PURE: steps, rollouts, tokens, time
calibration.py  tokens per second of a run that was
planner.py      a plan, put together of all these
cautions.py     what will go wrong though it fits; training warns of some of it when it starts
remedies.py     changes that would help most, by planning again with each
show.py         a plan as text and as JSON
"""
