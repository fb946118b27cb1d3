"""Runs as pictures: one HTML page that needs no network, the main curves as PNG, and the same page while it runs.

reading.py   a run's folder, whatever its state
rollouts.py  an index and a selection of its recorded completions
summary.py   both as plain data for the page
curves.py    the main curves as PNG
page.py      the page as one file
live.py      the page of a run that is still going, served on this machine

Nothing here imports torch.
"""
