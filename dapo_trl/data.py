"""The resumable prompt stream: which rows come next, for how long, and where a resumed run goes on."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import torch
from datasets import Dataset, IterableDataset

from .errors import ConfigError


class PromptSource(Protocol):
    """Rows by index; ``len()`` of an endless source raises ``TypeError``."""

    def __getitem__(self, index: int) -> Mapping[str, Any]: ...


class PromptStream:
    """Every prompt of the run, in order, for first rounds and refills alike.

    A finite source is walked in full once per epoch, in a fresh permutation each time (``seed + epoch``); an endless
    one is walked in index order. The position is two integers, so a checkpoint holds it and a resumed run continues
    with the very next prompt.
    """

    def __init__(self, source: PromptSource, *, size: int | None, seed: int = 0, shuffle: bool = True):
        self.source = source
        self.size = size
        self.seed = seed
        self.shuffle = shuffle
        self.consumed = 0
        """prompts drawn so far"""
        self._permutation: tuple[int, list[int]] | None = None

    @property
    def epochs(self) -> float:
        """Passes over the data so far; 0 for an endless source."""
        return self.consumed / self.size if self.size else 0.0

    def take(self, count: int) -> list[dict[str, Any]]:
        """The next ``count`` rows."""
        rows = [dict(self.source[self._index(self.consumed + i)]) for i in range(count)]
        self.consumed += count
        return rows

    def _index(self, position: int) -> int:
        if self.size is None:
            return position
        epoch, offset = divmod(position, self.size)
        if not self.shuffle:
            return offset
        if self._permutation is None or self._permutation[0] != epoch:
            generator = torch.Generator().manual_seed(self.seed + epoch)
            self._permutation = (epoch, torch.randperm(self.size, generator=generator).tolist())
        return self._permutation[1][offset]

    def state_dict(self) -> dict[str, Any]:
        return {"consumed": self.consumed, "size": self.size, "seed": self.seed}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if state["size"] != self.size:
            raise ConfigError(
                f"the checkpoint was made on data of {state['size']} rows and this data has {self.size}: resume with "
                "the same data."
            )
        self.consumed = state["consumed"]
        self.seed = state["seed"]


class StreamedPrompts:
    """The same for a `datasets.IterableDataset`, whose rows can only be read in order.

    A resumed stream reads its epoch again up to where it stood: slower than an index, and exact, also when shuffled.
    """

    size = None

    def __init__(self, dataset: IterableDataset, *, seed: int = 0, shuffle: bool = True):
        self.dataset = dataset.shuffle(seed=seed) if shuffle else dataset
        self.consumed = 0
        self.epoch = 0
        self._offset = 0
        self._rows: Iterator[dict[str, Any]] = iter(())
        self._open(0)

    @property
    def epochs(self) -> float:
        return float(self.epoch)

    def take(self, count: int) -> list[dict[str, Any]]:
        return [self._next() for _ in range(count)]

    def state_dict(self) -> dict[str, Any]:
        return {"consumed": self.consumed, "epoch": self.epoch, "offset": self._offset}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.consumed = state["consumed"]
        self._open(state["epoch"])
        self._offset = sum(1 for _ in itertools.islice(self._rows, state["offset"]))

    def _open(self, epoch: int) -> None:
        self.epoch, self._offset = epoch, 0
        self.dataset.set_epoch(epoch)
        self._rows = iter(self.dataset)

    def _next(self) -> dict[str, Any]:
        row = next(self._rows, None)
        if row is None:
            if self._offset == 0:
                raise ConfigError("train_dataset is an IterableDataset without a single row: it needs at least one.")
            self._open(self.epoch + 1)
            return self._next()
        self._offset += 1
        self.consumed += 1
        return dict(row)


def prompt_stream(dataset: Dataset | IterableDataset, *, seed: int, shuffle: bool) -> PromptStream | StreamedPrompts:
    """The stream over a TRL-style ``train_dataset`` (a ``prompt`` column; other columns go to the rewards)."""
    if isinstance(dataset, IterableDataset):
        return StreamedPrompts(dataset, seed=seed, shuffle=shuffle)
    return PromptStream(dataset, size=len(dataset), seed=seed, shuffle=shuffle)
