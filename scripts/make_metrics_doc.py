"""Writes docs/metrics.md from `dapo_trl.metrics` and `dapo_trl.alarms`: python scripts/make_metrics_doc.py"""

from __future__ import annotations

import inspect
from itertools import groupby
from pathlib import Path

from dapo_trl.alarms import RULES
from dapo_trl.metrics import INHERITED, METRICS, Metric

PATH = Path(__file__).resolve().parent.parent / "docs" / "metrics.md"
OPENING = """# Metrics

Made by `scripts/make_metrics_doc.py` from [`metrics.py`](../dapo_trl/metrics.py) and
[`alarms.py`](../dapo_trl/alarms.py).

A run writes one line of JSON per log into `metrics.jsonl`, under the names below, with `step` (optimizer steps) and
`seconds` (since the command was started; a resumed run counts from 0 again). Between two logs values are averaged
(`logging_steps`); running totals are those of the last step. What no rollout batch was sampled for is left out of a
log. In TensorBoard, trackio and Weights & Biases (`report_to`) a name with a group (`accuracy/sampled`) is the same and
stands in that group; one without is found under `train/`, held-out figures (`eval_...`) under `eval/`.

`dapo-trl report RUN [RUN ...]` draws them, `dapo-trl watch RUN` while the run goes on.
"""
ALARMS = """## Alarms

Told from the logs while the run goes on, in one line with the number, the likely cause and the setting to change; again
in the report. Values are means of the newest 3. An alarm sounds once, and again only after 5 quiet logs. `on_alarm`:
`warn`, `checkpoint` (saves one besides) or `stop` (saves one and ends the run with exit code 1).

| alarm | sounds when |
|---|---|
"""


def document() -> str:
    """The page as it should be."""
    parts = [OPENING]
    for title, metrics in (("Of this trainer", METRICS), ("Of TRL and Transformers", INHERITED)):
        parts.append(f"## {title}\n")
        grouped = sorted(metrics, key=lambda name: "/" in name)
        for has_group, names in groupby(grouped, key=lambda name: name.partition("/")[0] if "/" in name else ""):
            heading = f"### {has_group}/\n\n" if has_group else ""
            parts.append(
                f"{heading}| name | meaning | over | healthy |\n|---|---|---|---|\n{_rows(list(names), metrics)}"
            )
    rules = (f"| {rule.__name__.replace('_', ' ')} | {_sentence(rule)} |" for rule in RULES)
    return "\n".join([*parts, ALARMS + "\n".join(rules)]) + "\n"


def _rows(names: list[str], metrics: dict[str, Metric]) -> str:
    cells = ((f"`{name}`", metrics[name].definition, metrics[name].over, metrics[name].healthy) for name in names)
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |\n" for row in cells)


def _sentence(rule: object) -> str:
    return " ".join((inspect.getdoc(rule) or "").split())


if __name__ == "__main__":
    PATH.write_text(document(), encoding="utf-8")
