"""Step 1: which prompts come next.

stream.py      every prompt of the run in order, and where a resumed run goes on
difficulty.py  what is remembered of each prompt, and how likely its group is informative
selector.py    which prompts of the stream are drawn for a round, and how many
"""
