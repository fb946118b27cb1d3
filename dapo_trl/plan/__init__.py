"""What a run will do and whether it fits, before anything is loaded: ``dapo-trl plan``.

inert.py        settings that cannot act
cards.py        devices and their memory
devices.py      how many devices, how the model is spread over them, and settings for devices that are not here
weights.py      parameters, counted on a model without data
trace.py        what a forward and backward pass keeps in memory, from a run without data
memory.py       PURE: bytes of everything a device holds, phase by phase
refill.py       how much dynamic sampling generates, by the code that samples
schedule.py     PURE: steps, rollouts, tokens, warm-up, time
task.py         what the environment says of its rows and prompts
calibration.py  tokens per second of a run that was
cautions.py     what will go wrong though it fits
planner.py      a plan, put together of all these
remedies.py     changes that would help most, by planning again with each
show.py         a plan as text and as JSON
command.py      the command
"""
