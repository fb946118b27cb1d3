"""Know the data before training: which rows teach, which are copies, and which golds are probably wrong.

settings.py  the options of `dapo-trl triage`
samples.py   the rows of an evaluation with their samples
golds.py     golds that are probably wrong, at a stated false discovery rate: NumPy alone
overlap.py   copies and near-copies of questions
sorting.py   each row is kept, or left out with a reason; the rollouts that saves
rows.py      the kept rows as a file to train on
command.py   `dapo-trl triage`, from samples to files
page.py      the result as one page
"""
