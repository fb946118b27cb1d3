"""Runs as pictures: one HTML page that needs no network, the main curves as PNG, and the same page while it runs.

`reading` takes in what there is of a run's folder, `rollouts` a selection of its completions, `summary` makes plain
data of both, `page` the file, `live` serves it. Nothing here imports torch.
"""
