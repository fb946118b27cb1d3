"""Make the parts of the documentation that come from the code: docs/configuration.md and docs/clip.png.

python scripts/make_docs.py            # write them
python scripts/make_docs.py --check    # exit code 1 if the pages are not what the code says now
"""

from __future__ import annotations

import argparse
import ast
import dataclasses
import inspect
import sys
import textwrap
from pathlib import Path
from typing import Any

from dapo_trl.config import DAPOConfig
from dapo_trl.settings import RunConfig

DOCS = Path(__file__).resolve().parent.parent / "docs"

CONFIGURATION = """# Configuration

This page is made from the code by `python scripts/make_docs.py`.

`dapo-trl train --config A.yaml B.yaml --field value`: files merge from left to right, flags win. A value replaces an
earlier one as a whole, `env_kwargs` too. The files that ship are on three axes, one of each makes a run:
`configs/algorithm` (what is optimised), `configs/task` (what it is trained on), `configs/hardware` (what it runs on).
An unknown name, a value of the wrong type and a combination that cannot work are refused before a model is loaded.

Lengths are in tokens. G is the group size, the completions of one prompt.

## The run

Settings of `dapo-trl train` beside those of the trainer (`dapo_trl.settings.RunConfig`).

{run}

## The trainer

`dapo_trl.DAPOConfig` is TRL's `GRPOConfig` with the fields below new or with another default. All other fields of
`GRPOConfig` and of `transformers.TrainingArguments` are settings too, under their own names:
[TRL](https://huggingface.co/docs/trl/grpo_trainer#trl.GRPOConfig),
[transformers](https://huggingface.co/docs/transformers/main_classes/trainer#transformers.TrainingArguments).

{trainer}

## How many there are of what

```text
completions per rollout batch = per_device_train_batch_size x processes x steps_per_generation
groups per rollout batch      = completions per rollout batch / num_generations
optimizer steps on each       = steps_per_generation / gradient_accumulation_steps x num_iterations
```

Clip-Higher acts only if there are several optimizer steps on a rollout batch: in the first the ratio is 1.
"""


def configuration() -> str:
    """The page on settings."""
    trainer = [
        (name, _kind(annotation), default, text)
        for name, annotation, default, text in _fields(DAPOConfig)
        if name in DAPOConfig.__annotations__
    ]
    run = [(name, _kind(annotation), default, text) for name, annotation, default, text in _fields(RunConfig)]
    return CONFIGURATION.format(run=_table(run), trainer=_table(trainer))


def _fields(owner: type) -> list[tuple[str, str, str, str]]:
    """Name, annotation, default and description of each field, in order."""
    described = _attribute_docstrings(owner)
    found = []
    for field in dataclasses.fields(owner):
        text = field.metadata.get("help") or described.get(field.name, "")
        found.append((field.name, str(field.type), _default(field), text))
    return found


def _attribute_docstrings(owner: type) -> dict[str, str]:
    """The texts that stand below the fields of a class."""
    (body,) = ast.parse(textwrap.dedent(inspect.getsource(owner))).body
    assert isinstance(body, ast.ClassDef)
    texts = {}
    for field, text in zip(body.body, body.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant):
            assert isinstance(field.target, ast.Name)
            texts[field.target.id] = inspect.cleandoc(str(text.value.value))
    return texts


def _default(field: dataclasses.Field[Any]) -> str:
    if field.default_factory is not dataclasses.MISSING:
        return repr(field.default_factory())
    return repr(field.default)


def _kind(annotation: str) -> str:
    return annotation.replace("dict[str, Any]", "mapping").replace("list[Any]", "list").replace(" | ", " or ")


def _table(fields: list[tuple[str, str, str, str]]) -> str:
    rows = ["| setting | type | default | what it does |", "|---|---|---|---|"]
    for name, kind, default, text in fields:
        words = " ".join(text.replace("``", "`").split()).replace("|", "\\|")
        rows.append(f"| `{name}` | {kind} | `{default}` | {words[:1].upper()}{words[1:].removesuffix('.')} |")
    return "\n".join(rows)


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


PAGES = {"configuration.md": configuration}


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
