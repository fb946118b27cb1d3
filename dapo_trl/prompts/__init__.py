"""Step 1: which prompts come next.

usable.py      which rows can be prompts: found before the first step, or passed over when drawn
stream.py      every prompt of the run in order, and where a resumed run goes on
difficulty.py  memory of each prompt: how likely its group is informative
selector.py    the prompts of a round: which are drawn, and how many (`prompt_selection`)
"""
