"""Fill the tables of docs/results.md, and draw its plots, from the raw files in benchmarks/results.

python scripts/make_results.py            # write them
python scripts/make_results.py --check    # exit code 1 if a table is not what the raw files say

A table stands between `<!-- made: NAME -->` and `<!-- end -->`.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
PAGE = ROOT / "docs" / "results.md"
sys.path.insert(0, str(ROOT / "benchmarks"))

import ladder_table  # noqa: E402
import time_table  # noqa: E402
from ladder import ARMS, RUNGS  # noqa: E402

PAPER = (30, 36, 38, 41, 42, 50)
"""Table 1 of the paper: avg@32 on AIME 2024, in percent, of the rungs in order."""


def runs(name: str) -> list[dict[str, Any]]:
    return json.loads((RESULTS / f"{name}.runs.json").read_text(encoding="utf-8"))


def markdown(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def rungs() -> str:
    """The rungs beside the paper's."""
    rows = ladder_table.table(runs("ladder"), list(ARMS)[: len(RUNGS) + 1], ladder_table.RESULTS)
    return markdown(
        ["", "paper, AIME 2024", *ladder_table.RESULTS],
        [[row[0], str(score), *row[1:]] for row, score in zip(rows, PAPER, strict=True)],
    )


def arms(names: Sequence[str], figures: dict[str, ladder_table.Figure]) -> str:
    return markdown(["", *figures], ladder_table.table(runs("ladder"), names, figures))


def steps_of_the_ladder() -> str:
    """What each technique changes when it is added, and when it alone is left out of the whole."""
    found = runs("ladder")
    names = list(ARMS)[: len(RUNGS) + 1]
    full = names[-1]
    rows = []
    for number, rung in enumerate(RUNGS):
        without = names[number] if number == len(RUNGS) - 1 else f"all but {rung}"
        pairs = ((names[number + 1], names[number]), (full, without))
        figures = [ladder_table.RESULTS[f"accuracy, same {kind}"] for kind in ("steps", "tokens")]
        cells = [
            ladder_table.shown(*ladder_table.difference(found, *pair, figure)) for pair in pairs for figure in figures
        ]
        rows.append([rung, *cells])
    kinds = ("same steps", "same tokens")
    return markdown(["", *(f"{what}, {kind}" for what in ("added", "in the whole") for kind in kinds)], rows)


def claims() -> str:
    """Every claim of every benchmark."""
    rows = []
    for path in sorted(RESULTS.glob("*.json")):
        if path.name.endswith(".runs.json"):
            continue
        for claim in json.loads(path.read_text(encoding="utf-8"))["claims"]:
            at_least = claim["higher_is_better"]
            holds = claim["value"] >= claim["bar"] if at_least else claim["value"] <= claim["bar"]
            bar = f"{'at least' if at_least else 'at most'} {claim['bar']:g}"
            rows.append([f"`{path.stem}`", claim["name"], f"{claim['value']:.4g}", bar, "yes" if holds else "**no**"])
    return markdown(["benchmark", "claim", "measured", "bar", "holds"], rows)


def machines() -> str:
    """What each benchmark was measured on."""
    rows = []
    for path in sorted(RESULTS.glob("*.json")):
        if not path.name.endswith(".runs.json"):
            machine = json.loads(path.read_text(encoding="utf-8"))["machine"]
            versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
            where = f"{machine['cpu']}, {machine['cores']} cores"
            rows.append([f"`{path.stem}`", f"`{machine['commit']}`", where, versions])
    return markdown(["benchmark", "commit", "machine", "versions"], rows)


def measured(name: str) -> list[dict[str, Any]]:
    """A list of benchmarks/results/mismatch.json."""
    return json.loads((RESULTS / "mismatch.json").read_text(encoding="utf-8"))["measured"][name]


def planted_mismatch() -> str:
    """The largest distance of measurement and prediction over all modes, by length and spread."""
    found, rows = measured("planted"), []
    for tokens, spread in dict.fromkeys((one["tokens"], one["planted"]) for one in found):
        group = [one for one in found if (one["tokens"], one["planted"]) == (tokens, spread)]
        lowest = min(group, key=lambda one: one["predicted"])
        off = max(abs(one["measured"] / one["predicted"] - 1) for one in group)
        ledger = max(abs(one["acting"] - one["predicted"]) for one in group)
        figures = [f"{lowest['predicted']:.3f}", f"{lowest['measured']:.3f}", f"{off:.1%}", f"{ledger:.4f}"]
        rows.append([f"{tokens:,}", f"{spread}", *figures])
    headings = ["tokens", "s", "lowest weight, predicted", "measured", "weights, off by", "ledger, off by"]
    return markdown(headings, rows)


def bfloat16_mismatch() -> str:
    """Predicted and measured weights of the modes that lose with length."""
    modes = ("token_truncate", "sequence_truncate", "sequence_mask")
    rows = []
    for model, tokens in dict.fromkeys((one["model"], one["tokens"]) for one in measured("bfloat16")):
        group = {one["mode"]: one for one in measured("bfloat16") if (one["model"], one["tokens"]) == (model, tokens)}
        first = group[modes[0]]
        cells = [f"{group[mode]['predicted']:.3f}, {group[mode]['measured']:.3f}" for mode in modes]
        rows.append([f"`{model}`", f"{tokens:,}", f"{first['spread']:.4f}", f"{first['of_sums']:.4f}", *cells])
    return markdown(
        ["model", "tokens", "s", "s of the sums", *(f"`{mode}`: predicted, measured" for mode in modes)], rows
    )


TABLES: dict[str, Callable[[], str]] = {
    "rungs": rungs,
    "left out": lambda: arms(list(ARMS)[len(RUNGS) :], ladder_table.RESULTS),
    "mechanisms": lambda: arms(list(ARMS), ladder_table.MECHANISMS),
    "techniques": steps_of_the_ladder,
    "time to accuracy": lambda: markdown(time_table.HEADINGS, time_table.rows(runs("time_to_accuracy"))),
    "sections": lambda: markdown(["", *time_table.SIDES], time_table.sections(runs("time_to_accuracy"))),
    "planted mismatch": planted_mismatch,
    "bfloat16 mismatch": bfloat16_mismatch,
    "claims": claims,
    "machines": machines,
}
BLOCK = re.compile(r"(<!-- made: ([\w, ]+) -->\n)(?:(?!<!--).)*(<!-- end -->)", re.DOTALL)


def filled(text: str) -> str:
    """A page with its tables as the raw files have them."""
    return BLOCK.sub(lambda found: f"{found[1]}{TABLES[found[2]]()}\n{found[3]}", text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 1 if a table is out of date")
    options = parser.parse_args()
    text = PAGE.read_text(encoding="utf-8")
    if options.check and filled(text) != text:
        sys.exit(f"a table of {PAGE.name} is not what benchmarks/results says: run python scripts/make_results.py")
    if not options.check:
        PAGE.write_text(filled(text), encoding="utf-8")
        ladder_table.plot(runs("ladder"), list(ARMS)[: len(RUNGS) + 1], ROOT / "docs" / "ladder.png")
        time_table.plot(runs("time_to_accuracy"), ROOT / "docs" / "time-to-accuracy.png")


if __name__ == "__main__":
    main()
