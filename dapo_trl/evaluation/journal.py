"""An evaluation's folder: the request, the samples as they are judged, and the results.

``request.json``         everything that decides a sample: the weights, the environments, how completions are drawn
``samples-*.jsonl``      a line for each sample, appended batch by batch; a file for each process
``samples.parquet``      all samples with their prompts, once the evaluation is complete
``results.json``         the figures

A line that a killed process left incomplete is skipped, and its sample drawn again.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet

from ..errors import ConfigError
from .evaluator import EvalProblem, Sample
from .results import plain, title

REQUEST, RESULTS, PARQUET = "request.json", "results.json", "samples.parquet"
OWN_FILES = (REQUEST, RESULTS, PARQUET, "samples-*.jsonl")
"""Files of an evaluation in its folder."""
DERIVED = ("kept.jsonl", "kept.yaml", "left_out.jsonl", "triage.json", "triage.jsonl", "triage.html")
"""Files that are made of its samples (`dapo_trl.triage`); ``overwrite`` deletes these and its own, and no others."""

_COLUMNS = pyarrow.schema(
    {
        "env": pyarrow.int32(),
        "index": pyarrow.int64(),
        "level": pyarrow.string(),
        "number": pyarrow.int32(),
        "prompt": pyarrow.string(),
        "completion": pyarrow.string(),
        "verdict": pyarrow.string(),
        "accuracy": pyarrow.float64(),
        "answer": pyarrow.string(),
        "cause": pyarrow.string(),
        "length": pyarrow.int32(),
        "truncated": pyarrow.bool_(),
    }
)
"""Columns of the parquet file; ``env`` is the place of the environment among those of the results."""

Samples = dict[tuple[int, int], Sample]
"""Samples by the problem's index and the sample's number."""


class Journal:
    """The folder of an evaluation, as one process sees it."""

    def __init__(self, folder: Path, *, process: int = 0):
        self.folder = folder
        self._file = folder / f"samples-{process}.jsonl"

    def begin(self, request: Mapping[str, Any], *, overwrite: bool) -> None:
        """Prepare the folder for a request, or continue the evaluation in it. One process does it for all.

        Raises:
            ConfigError: the folder holds another evaluation or other files, or cannot be written.
        """
        if self.folder.exists() and not self.folder.is_dir():
            raise ConfigError(f"output_dir {self.folder} is a file: it must be a folder, or not exist yet.")
        found = sorted(path for pattern in OWN_FILES for path in self.folder.glob(pattern))
        asked = json.loads(json.dumps(plain(request)))
        if found and self.folder / REQUEST not in found:
            raise ConfigError(
                f"output_dir {self.folder} holds {found[0].name} and no {REQUEST}, so it is not the folder of an "
                "evaluation: choose another --output_dir."
            )
        if found and not overwrite:
            self._check_same(asked)
        try:
            if overwrite and found:
                for path in (*found, *(self.folder / name for name in DERIVED)):
                    path.unlink(missing_ok=True)
            self.folder.mkdir(parents=True, exist_ok=True)
            write(self.folder / REQUEST, asked)
        except OSError as error:
            raise ConfigError(f"output_dir {self.folder} cannot be written: {error}") from error

    def _check_same(self, asked: dict[str, Any]) -> None:
        way_out = "choose another --output_dir, or start anew with --overwrite true."
        try:
            before = json.loads((self.folder / REQUEST).read_text(encoding="utf-8"))
            names, now = _by_title(before), _by_title(asked)
            different = differences(
                {**before, "model": None, "environments": ", ".join(names)},
                {**asked, "model": None, "environments": ", ".join(now)},
            ) or differences(names, now)
        except (ValueError, KeyError, TypeError) as error:
            raise ConfigError(f"{self.folder / REQUEST} is damaged: {way_out}") from error
        if different:
            raise ConfigError(
                f"output_dir {self.folder} holds an evaluation with {'; '.join(different[:3])}: {way_out}"
            )

    def append(self, env: int, problems: Mapping[int, EvalProblem], samples: Sequence[Sample]) -> None:
        """Append samples to the file, in one write.

        Args:
            env: place of the environment among those asked for.
            problems: by index.
        """
        lines = [
            json.dumps({"env": env, "problem": problems[sample.index].digest, **plain(dataclasses.asdict(sample))})
            for sample in samples
        ]
        begun = self._file.exists() and self._file.stat().st_size > 0
        with self._file.open("ab") as file:  # a blank line apart, so that one torn before does not spoil these
            file.write("".join(f"{line}\n" for line in (["", *lines] if begun else lines)).encode())

    def read(self, env: int, problems: Mapping[int, EvalProblem]) -> Samples:
        """The samples of one environment's problems that were drawn already.

        Raises:
            ConfigError: a problem has changed since its samples were drawn.
        """
        found: Samples = {}
        for line in self._lines():
            if line["env"] != env or (problem := problems.get(line["sample"].index)) is None:
                continue
            if line["problem"] != problem.digest:
                raise ConfigError(
                    f"problem {problem.index} reads differently now than when the samples in {self.folder} were drawn: "
                    "its data or the chat template has changed. Choose another --output_dir, or start anew with "
                    "--overwrite true."
                )
            found[problem.index, line["sample"].number] = line["sample"]
        return found

    def _lines(self) -> Iterator[dict[str, Any]]:
        names = [field.name for field in dataclasses.fields(Sample)]
        for path in sorted(self.folder.glob("samples-*.jsonl")):
            with path.open("rb") as lines:
                for text in lines:
                    try:
                        line = json.loads(text)
                        fields = {name: line[name] for name in names}
                        fields["accuracy"] = math.nan if fields["accuracy"] is None else fields["accuracy"]
                        yield {"env": line["env"], "problem": line["problem"], "sample": Sample(**fields)}
                    except (ValueError, KeyError, TypeError):
                        continue

    def finish(
        self, results: Mapping[str, Any], samples: Sequence[tuple[Sequence[EvalProblem], Samples]], k: int
    ) -> None:
        """Write the figures, and all samples for other tools.

        Args:
            samples: of each environment, in order.
            k: samples of each problem.
        """
        scratch = self.folder / f"{PARQUET}.tmp"
        with pyarrow.parquet.ParquetWriter(scratch, _COLUMNS) as file:
            for env, (problems, found) in enumerate(samples):
                rows = [
                    {
                        **dataclasses.asdict(found[problem.index, number]),
                        "env": env,
                        "prompt": problem.prompt,
                        "level": None if problem.level is None else str(problem.level),
                    }
                    for problem in problems
                    for number in range(k)
                ]
                file.write_table(pyarrow.Table.from_pylist(rows, schema=_COLUMNS))
        scratch.replace(self.folder / PARQUET)
        write(self.folder / RESULTS, results)


def _by_title(request: dict[str, Any]) -> dict[str, Any]:
    """The identity of each environment of a request, by its title."""
    return {title(found): {name: found[name] for name in ("spec", "versions")} for found in request["environments"]}


def write(path: Path, data: Mapping[str, Any]) -> None:
    """Write JSON: complete, or not at all."""
    write_text(path, [json.dumps(plain(data), indent=2), "\n"])


def write_text(path: Path, parts: Iterable[str]) -> None:
    """Write a text, part by part: complete, or not at all."""
    scratch = path.with_name(f"{path.name}.tmp")
    with scratch.open("w", encoding="utf-8") as file:
        file.writelines(parts)
    scratch.replace(path)


def differences(before: Any, now: Any, place: str = "") -> list[str]:
    """Where two values of plain data differ, each in a few words: ``temperature 1.0, now 0.7``."""
    if isinstance(before, dict) and isinstance(now, dict):
        places = {name: f"{place}.{name}" if place else name for name in {**before, **now}}
        return [text for name, at in places.items() for text in differences(before.get(name), now.get(name), at)]
    if isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        found = [
            differences(one, other, f"{place}[{at}]") for at, (one, other) in enumerate(zip(before, now, strict=True))
        ]
        return [text for texts in found for text in texts]
    return [] if before == now else [f"{place} {_brief(before)}, now {_brief(now)}"]


def _brief(value: Any) -> str:
    text = "none" if value is None else json.dumps(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
