"""The resumable prompt streams: which rows come next, for how long, and where a resumed run goes on."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from datasets import Dataset, IterableDataset

from ..errors import ConfigError, did_you_mean


class PromptSource(Protocol):
    """Rows by index; ``len()`` of an endless source raises ``TypeError``."""

    def __getitem__(self, index: int) -> Mapping[str, Any]: ...


class Checked:
    """A stream whose prompts may be checked when they are about to be drawn."""

    check: Callable[[int, Any], bool] | None = None
    """Whether the prompt at a position can be used; None: all can. See `usable.usable_prompts`."""

    def row(self, position: int) -> dict[str, Any]:
        """The row at a position of the stream, its own copy."""
        raise NotImplementedError

    def usable(self, position: int) -> bool:
        """Whether the prompt at a position can be drawn."""
        return self.check is None or self.check(position, self.row(position).get("prompt"))


class PromptStream(Checked):
    """Every prompt of the run, in order, for first rounds and refills alike.

    A finite source is walked in full once per epoch, in a fresh permutation each time (``seed + epoch``); an endless
    one is walked in index order. The position is one integer, so a checkpoint holds it and a resumed run continues
    with the very next prompt.
    """

    def __init__(self, source: PromptSource, *, size: int | None, seed: int = 0, shuffle: bool = True):
        self.source = source
        self.size = size
        self.seed = seed
        self.shuffle = shuffle
        self.position = 0
        """Prompts behind the stream so far, drawn or skipped."""
        self._permutation: tuple[int, list[int]] | None = None

    @property
    def epochs(self) -> float:
        """Walks through the data so far; 0 for an endless source."""
        return self.position / self.size if self.size else 0.0

    def key(self, position: int) -> int:
        """Which row of the source comes at a position of the stream."""
        if self.size is None:
            return position
        epoch, offset = divmod(position, self.size)
        if not self.shuffle:
            return offset
        if self._permutation is None or self._permutation[0] != epoch:
            generator = torch.Generator().manual_seed(self.seed + epoch)
            self._permutation = (epoch, torch.randperm(self.size, generator=generator).tolist())
        return self._permutation[1][offset]

    def row(self, position: int) -> dict[str, Any]:
        return dict(self.source[self.key(position)])

    def advance(self, position: int) -> None:
        """Walk on: everything before ``position`` is past."""
        self.position = position

    def state_dict(self) -> dict[str, Any]:
        return {"position": self.position, "size": self.size, "seed": self.seed}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if state["size"] != self.size:
            raise ConfigError(
                f"the checkpoint was made on data of {state['size']} usable rows and this data has {self.size}: resume "
                "with the same data and max_completion_length."
            )
        self.position = state["position"]
        self.seed = state["seed"]


class StreamedPrompts(Checked):
    """The same for a `datasets.IterableDataset`, whose rows can only be read in order.

    A resumed stream reads its epoch again up to where it stood: slower than an index, and exact, also when shuffled.
    """

    size = None

    def __init__(self, dataset: IterableDataset, *, seed: int = 0, shuffle: bool = True):
        self.dataset = dataset.shuffle(seed=seed) if shuffle else dataset
        self.position = 0
        self._ahead: dict[int, tuple[dict[str, Any], int, int]] = {}
        """Rows read ahead, by position: the row, its epoch, and the rows of that epoch read up to and including it."""
        self._read = 0
        """Rows read so far."""
        self._past = (0, 0)
        """The epoch, and the rows of it that are behind the stream."""
        self._rows: Iterator[dict[str, Any]] = iter(())
        self._open(0)

    @property
    def epochs(self) -> float:
        return float(self._past[0])

    def key(self, position: int) -> int:
        return position

    def row(self, position: int) -> dict[str, Any]:
        while position not in self._ahead:
            self._ahead[self._read] = (self._next(), self._epoch, self._offset)
            self._read += 1
        return dict(self._ahead[position][0])

    def advance(self, position: int) -> None:
        if position > self.position:
            self.row(position - 1)
            self._past = self._ahead[position - 1][1:]
        self._ahead = {at: row for at, row in self._ahead.items() if at >= position}
        self.position = position

    def state_dict(self) -> dict[str, Any]:
        return {"position": self.position, "past": list(self._past)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.position = self._read = state["position"]
        self._ahead = {}
        epoch, offset = self._past = tuple(state["past"])
        self._open(epoch)
        self._offset = sum(1 for _ in itertools.islice(self._rows, offset))

    def _open(self, epoch: int) -> None:
        self._epoch, self._offset = epoch, 0
        self.dataset.set_epoch(epoch)
        self._rows = iter(self.dataset)

    def _next(self) -> dict[str, Any]:
        row = next(self._rows, None)
        if row is None:
            if self._offset == 0:
                raise ConfigError("train_dataset is an IterableDataset without a single row: it needs at least one.")
            self._open(self._epoch + 1)
            return self._next()
        self._offset += 1
        return dict(row)


def prompt_stream(dataset: Dataset | IterableDataset, *, seed: int, shuffle: bool) -> PromptStream | StreamedPrompts:
    """The stream over a TRL-style ``train_dataset`` (a ``prompt`` column; other columns go to the rewards)."""
    if isinstance(dataset, IterableDataset):
        return StreamedPrompts(dataset, seed=seed, shuffle=shuffle)
    return PromptStream(dataset, size=len(dataset), seed=seed, shuffle=shuffle)


@dataclass(frozen=True)
class DataPart:
    """The rows of a data set that belong to one task of a mixture."""

    rows: Dataset | IterableDataset
    name: str = ""
    weight: float = 1.0


def parts_of(
    dataset: Dataset | IterableDataset, column: str | None, weights: Mapping[str, float] | None
) -> list[DataPart]:
    """The tasks of a data set, by the column that names them; all of it as one without a column.

    Args:
        weights: The weight of each task; None: its number of rows.

    Raises:
        ConfigError: There is no such column, the rows can only be read in order, or the weights are not those of the
            tasks.
    """
    if column is None:
        return [DataPart(dataset)]
    if isinstance(dataset, IterableDataset):
        raise ConfigError(
            f"mix_column is {column!r} and train_dataset is an IterableDataset: the rows of each task must be found "
            "before training. Load it as a Dataset."
        )
    if column not in dataset.column_names:
        hint = did_you_mean(column, dataset.column_names)
        raise ConfigError(
            f"mix_column is {column!r}, and train_dataset has the columns {', '.join(dataset.column_names)}.{hint}"
        )
    rows: dict[str, list[int]] = {}
    for index, task in enumerate(dataset[column]):
        rows.setdefault(str(task), []).append(index)
    given = {name: float(len(found)) for name, found in rows.items()} if weights is None else weights
    if missing := sorted(rows.keys() ^ given.keys()):
        raise ConfigError(
            f"mix_weights names {', '.join(map(repr, given))}, and column {column!r} {', '.join(map(repr, rows))}: "
            f"{missing[0]!r} is in one of them alone. Give every task a weight."
        )
    return [DataPart(dataset.select(found), name, given[name]) for name, found in rows.items()]
