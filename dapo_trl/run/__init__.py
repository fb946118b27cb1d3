"""One training run: ``dapo-trl train``.

settings.py    the run's settings, and their merge from files and flags
owner.py       one living run to a folder
changes.py     what a resumed run has changed
startup.py     quiet libraries, threads, a writable folder
lora.py        LoRA and QLoRA from the settings; merging a saved adapter
model_card.py  what a saved model was trained from, on what, and how accurate it is
warmup.py      a cold start on the environment's own solutions, before training
calibration.py a minute of training, for the speed of a planned run
train.py       the run itself: measure, train, save, measure again, report
"""
