"""Make the parts of the documentation that come from the code: docs/configuration.md, docs/metrics.md, docs/clip.png,
the table of docs/generation.md.

python scripts/make_docs.py            # write them
python scripts/make_docs.py --check    # exit code 1 if a page does not match the code
"""

from __future__ import annotations

import argparse
import dataclasses
import inspect
import sys
import textwrap
from itertools import groupby
from pathlib import Path
from typing import Any

from dapo_trl.cli.outline import RUN, TRAINER, groups
from dapo_trl.config import DAPOConfig
from dapo_trl.evaluation.settings import ALIASES, EvalConfig
from dapo_trl.monitor.alarms import RULES
from dapo_trl.monitor.metrics import INHERITED, METRICS, Metric
from dapo_trl.run.settings import RunConfig
from dapo_trl.update.mismatch import MODES, expected

DOCS = Path(__file__).resolve().parent.parent / "docs"

CONFIGURATION = """# Configuration

This page is made from the code by `python scripts/make_docs.py`.

`dapo-trl train --config A.yaml B.yaml --field value`: files merge from left to right, flags win. A value replaces an
earlier one as a whole, `env_kwargs` too. The files that ship are on three axes, one of each makes a run:
`configs/algorithm` (the objective), `configs/task` (the environment), `configs/hardware` (the devices and the batch).
An unknown name, a value of the wrong type and a combination that cannot work are refused before a model is loaded.

Lengths are in tokens. G is the group size, the completions of one prompt.

`dapo-trl train --help` shows the same groups, `dapo-trl train --help algorithm` one of them, with the settings of TRL
and transformers too.

## Training

The settings of a run (`dapo_trl.run.settings.RunConfig`) and those of the trainer (`dapo_trl.DAPOConfig`, which is
TRL's `GRPOConfig` with other defaults and more fields), in groups. All fields of `GRPOConfig` and of
`transformers.TrainingArguments` are settings, under their own names:
[TRL](https://huggingface.co/docs/trl/grpo_trainer#trl.GRPOConfig),
[transformers](https://huggingface.co/docs/transformers/main_classes/trainer#transformers.TrainingArguments). Those that
matter most are named with their group.

{training}

## The evaluation

Settings of `dapo-trl eval` (`dapo_trl.evaluation.settings.EvalConfig`). The files of a training run can be used;
settings that only training has are ignored. As flags some have short names:
{short}.

{evaluation}

## The sizes of a run

```text
completions per rollout batch = per_device_train_batch_size x processes x steps_per_generation
groups per rollout batch      = completions per rollout batch / num_generations
optimizer steps on each       = steps_per_generation / gradient_accumulation_steps x num_iterations
```

Clip-Higher acts only if there are several optimizer steps on a rollout batch: in the first the ratio is 1.
"""


def configuration() -> str:
    """The page on settings."""
    short = ", ".join(f"`--{name}` for `{long}`" for name, long in ALIASES.items())
    return CONFIGURATION.format(
        training=_training(),
        evaluation=_table(_fields(EvalConfig)),
        short=textwrap.fill(short, 110),
    )


def _training() -> str:
    """The groups of a run's settings: a table of this project's, and the names of TRL's and transformers'."""
    own = {row[0]: row for row in _fields(RunConfig) + _fields(DAPOConfig)}
    parts = []
    for group, (sentence, members) in groups(RUN, *TRAINER).items():
        if group == "other":
            continue
        rows = [own[one.name] for one in members if one.name in own]
        rest = [f"`{one.name}`" for one in members if one.name not in own]
        parts += [f"### {group}", sentence] + ([_table(rows)] if rows else [])
        parts += (
            [textwrap.fill(f"{'Also of' if rows else 'Of'} TRL and transformers: {', '.join(rest)}.", 120)]
            if rest
            else []
        )
    return "\n\n".join(parts)


def _fields(owner: type) -> list[tuple[str, str, str, str]]:
    """Name, annotation, default and description of each setting that a class declares, in order."""
    own = [
        field for field in dataclasses.fields(owner) if field.name in owner.__annotations__ and "help" in field.metadata
    ]
    return [(field.name, _kind(str(field.type)), _default(field), field.metadata["help"]) for field in own]


def _default(field: dataclasses.Field[Any]) -> str:
    if field.default_factory is not dataclasses.MISSING:
        return repr(field.default_factory())
    return repr(field.default)


def _kind(annotation: str) -> str:
    if annotation == "Any":
        return "str or list"
    return annotation.replace("dict[str, Any]", "mapping").replace("list[Any]", "list").replace(" | ", " or ")


def _table(fields: list[tuple[str, str, str, str]]) -> str:
    rows = ["| setting | type | default | what it does |", "|---|---|---|---|"]
    for name, kind, default, text in fields:
        words = " ".join(text.replace("``", "`").split()).replace("|", "\\|")
        rows.append(f"| `{name}` | {kind} | `{default}` | {words.removesuffix('.')} |")
    return "\n".join(rows)


METRICS_PAGE = """# Metrics

Made by `python scripts/make_docs.py` from [`metrics.py`](../dapo_trl/monitor/metrics.py) and
[`alarms.py`](../dapo_trl/monitor/alarms.py).

A run writes one line of JSON per log into `metrics.jsonl`, under the names below, with `step` (optimizer steps) and
`seconds` (since the command was started; a resumed run counts on). Between two logs, values are averaged
(`logging_steps`); running totals are taken at the last step. Metrics of a rollout batch are missing from a log without
one. In TensorBoard, trackio and Weights & Biases (`report_to`) a name with a group (`accuracy/sampled`) is the same
and stands in that group; one without is found under `train/`, held-out figures (`eval_...`) under `eval/`.

`dapo-trl report RUN [RUN ...]` draws them, `dapo-trl watch RUN` while the run goes on.
"""
ALARMS = """## Alarms

Raised from the logs during the run, in one line with the number, the likely cause and the setting to change; shown
again in the report. Values are means of the newest 3. An alarm is raised once, and again only after 5 quiet logs.
`on_alarm`: `warn`, `checkpoint` (saves a checkpoint too) or `stop` (saves one and ends the run with exit code 1).

| alarm | raised when |
|---|---|
"""


def metrics() -> str:
    """The page on metrics and alarms."""
    parts = [METRICS_PAGE]
    for title, known in (("Of this trainer", METRICS), ("Of TRL and Transformers", INHERITED)):
        parts.append(f"## {title}\n")
        ordered = sorted(known, key=lambda name: "/" in name)
        for group, names in groupby(ordered, key=lambda name: name.partition("/")[0] if "/" in name else ""):
            heading = f"### {group}/\n\n" if group else ""
            table = "| name | meaning | over | healthy |\n|---|---|---|---|\n"
            parts.append(f"{heading}{table}{_metric_rows(list(names), known)}")
    rules = (
        f"| {rule.__name__.replace('_', ' ')} | {' '.join((inspect.getdoc(rule) or '').split())} |" for rule in RULES
    )
    return "\n".join([*parts, ALARMS + "\n".join(rules)]) + "\n"


def _metric_rows(names: list[str], known: dict[str, Metric]) -> str:
    cells = ((f"`{name}`", known[name].definition, known[name].over, known[name].healthy) for name in names)
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |\n" for row in cells)


MISMATCH = ("<!-- mismatch: made by scripts/make_docs.py -->\n", "<!-- /mismatch -->")
SPREADS, LENGTHS = (0.005, 0.01, 0.02, 0.05), (1024, 4096, 16384)


def generation() -> str:
    """The page on generation, with the table of weights of the corrections for vLLM's probabilities."""
    page = (DOCS / "generation.md").read_text(encoding="utf-8")
    before, after = page.split(MISMATCH[0])[0], page.split(MISMATCH[1])[1]
    heads = [f"s = {spread:g}" for spread in SPREADS]
    rows = [["mode", "tokens", *heads], ["---"] * (2 + len(heads))]
    for mode in MODES:
        for tokens in LENGTHS:
            weights = [expected(spread, tokens, mode, low=None, high=3.0).weight for spread in SPREADS]
            rows.append([f"`{mode}`", f"{tokens:,}", *(f"{weight:.3f}" for weight in weights)])
    table = "".join(f"| {' | '.join(row)} |\n" for row in rows)
    return f"{before}{MISMATCH[0]}\n{table}\n{MISMATCH[1]}{after}"


def draw_clip(path: Path) -> None:
    """The clipped surrogate and its gradient against the ratio, from the function that is trained with."""
    import torch
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    from dapo_trl.algorithm import clipped_surrogate

    ratio = torch.linspace(0.4, 1.8, 561, dtype=torch.float64).unsqueeze(1)
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, advantage, title in zip(
        figure.subplots(1, 2, sharey=False), (1.0, -1.0), ("advantage +1", "advantage -1"), strict=True
    ):
        for high, label, style in ((0.2, "symmetric, 0.2", "--"), (0.28, "Clip-Higher, 0.28", "-")):
            loss, _, _ = clipped_surrogate(ratio, torch.full((len(ratio),), advantage), epsilon_high=high)
            axes.plot(ratio.flatten(), -loss.flatten(), style, label=label)
        axes.set(title=title, xlabel="probability ratio r", ylabel="objective")
        axes.axvline(1.0, color="grey", linewidth=0.8)
        axes.grid(alpha=0.3)
        axes.legend()
    figure.savefig(path, dpi=110)


PAGES = {"configuration.md": configuration, "metrics.md": metrics, "generation.md": generation}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 1 if a page is out of date")
    options = parser.parse_args()
    if options.check:
        stale = [name for name, make in PAGES.items() if (DOCS / name).read_text(encoding="utf-8") != make()]
        if stale:
            sys.exit(f"out of date: {', '.join(stale)}: run python scripts/make_docs.py")
        return
    for name, make in PAGES.items():
        (DOCS / name).write_text(make(), encoding="utf-8")
    draw_clip(DOCS / "clip.png")


if __name__ == "__main__":
    main()
