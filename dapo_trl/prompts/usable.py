"""Which rows can be prompts: those that fit into the model's context and that it has embeddings for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from datasets import Dataset, IterableDataset

from envs.text import brief

from ..errors import ConfigError, did_you_mean
from .stream import PromptSource, PromptStream, StreamedPrompts

MAX_LOOKED_THROUGH = 20_000
"""Rows of finite data that are looked through before the first step; larger data are checked row by row when drawn."""
MAX_UNUSABLE = 1_000
"""Prompts in a row without a usable one that end a run."""
_RESERVED = ("prompts", "completions")
_NAMED = 3
_TEMPLATE = 1_024  # tokens


def check_columns(given: Mapping[str, Any]) -> None:
    """Refuse data sets without prompts, or with a column that reward functions could not be given.

    Args:
        given: Data sets by the argument that they were given as, each one, several by name, or None. The columns of a
            stream may be unknown.

    Raises:
        ConfigError: With the columns there are.
    """
    for name, dataset in given.items():
        if isinstance(dataset, dict):
            check_columns({f"{name}[{key!r}]": part for key, part in dataset.items()})
        elif isinstance(dataset, Dataset | IterableDataset) and dataset.column_names is not None:
            _check_columns(name, dataset, dataset.column_names)


def _check_columns(name: str, dataset: Dataset | IterableDataset, columns: list[str]) -> None:
    if isinstance(dataset, Dataset) and not len(dataset):
        raise ConfigError(f"{name} has no rows: it needs at least one.")
    if "prompt" not in columns:
        hint = did_you_mean("prompt", columns)
        raise ConfigError(
            f"{name} has no column 'prompt' (columns: {', '.join(columns)}): rename the one that holds the prompts "
            f"with rename_column(..., 'prompt').{hint}"
        )
    for column in _RESERVED:
        if column in columns:
            raise ConfigError(
                f"{name} has a column {column!r}: reward functions get their own {column} under this name. Rename or "
                f"remove it, as with rename_column({column!r}, 'my_{column}')."
            )


@dataclass(frozen=True)
class Fault:
    """Why a prompt cannot be used."""

    sentence: str
    """Without its row, as in "has 600 tokens, ..."."""
    too_long: bool = False


@dataclass(frozen=True)
class PromptCheck:
    """Finds the fault of a prompt, if it has one."""

    tokenize: Callable[[Any], list[int]]
    """Token ids of a prompt."""
    completion: int
    """Longest completion, in tokens."""
    context: int | None
    """Tokens that the model takes; None: any number."""
    vocabulary: int
    """Tokens of the tokenizer."""
    embeddings: int
    """Tokens that the model has embeddings for."""
    examples: int = 0
    """Tokens of each prompt that are few-shot examples."""

    def fault(self, prompt: Any) -> Fault | None:
        """The fault of a prompt, text or chat messages; None if it can be used."""
        if not isinstance(prompt, str | list):
            return Fault(f"is {brief(prompt)} ({type(prompt).__name__}): it must be text or a list of chat messages")
        if not prompt:
            return Fault("is empty: it must have at least one token")
        if self._surely_fits(prompt):
            return None
        ids = self.tokenize(prompt)
        if not ids:
            return Fault("is empty: it must have at least one token")
        if max(ids) >= self.embeddings:
            return Fault(
                f"holds the token {max(ids)}, and the model has embeddings for {self.embeddings}: add them with "
                "model.resize_token_embeddings(len(tokenizer)), or use the model's own tokenizer"
            )
        if self.context is not None and len(ids) + self.completion > self.context:
            examples = f", {self.examples} of them few_shot examples" if self.examples else ""
            return Fault(
                f"has {len(ids)} tokens{examples}: with max_completion_length {self.completion} that is "
                f"{len(ids) + self.completion}, and the model's context holds {self.context}",
                too_long=True,
            )
        return None

    def _surely_fits(self, prompt: str | list[Any]) -> bool:
        """Whether a prompt need not be tokenized: a token is a byte or more, and a chat template adds little."""
        if self.vocabulary > self.embeddings:
            return False
        size = len(str(prompt).encode(errors="replace"))
        return self.context is None or size + _TEMPLATE + self.completion <= self.context


class _Chosen:
    """Some rows of a source."""

    def __init__(self, source: PromptSource, rows: list[int]):
        self._source, self._rows = source, rows

    def __getitem__(self, index: int) -> Mapping[str, Any]:
        return self._source[self._rows[index]]


def usable_prompts(
    stream: PromptStream | StreamedPrompts, check: PromptCheck, *, skip: bool, finite: bool, warn: Callable[[str], None]
) -> None:
    """Let a stream pass over prompts that are too long, or refuse them.

    Args:
        stream: Before the first prompt is drawn.
        skip: Whether prompts that are too long are left out; otherwise they are refused.
        finite: Whether its rows are cheap to look through before training.
        warn: Prints a line.

    Raises:
        ConfigError: A row holds no prompt, or one that the model cannot read; or all are too long.
    """
    if check.context is not None and check.completion >= check.context:
        raise ConfigError(
            f"max_completion_length is {check.completion}, and the model's context holds {check.context} tokens, the "
            "prompt's included: lower it, or use a model with a longer context."
        )
    if not finite or not isinstance(stream, PromptStream) or not 0 < (stream.size or 0) <= MAX_LOOKED_THROUGH:
        stream.check = _skipping(check, skip=skip, warn=warn)
        return
    kept, left_out = list[int](), list[str]()
    size = stream.size
    assert size is not None
    for row in range(size):
        fault = check.fault(stream.source[row].get("prompt"))
        if fault is None:
            kept.append(row)
            continue
        sentence = f"the prompt of row {row} {fault.sentence}"
        if not fault.too_long or not skip:
            raise ConfigError(f"{sentence}.{_FIX if fault.too_long else ''}")
        left_out.append(sentence)
    if not kept:
        raise ConfigError(f"all {size} prompts are too long: {left_out[0]}.{_FIX}")
    if left_out:
        warn(f"{len(left_out)} of {size} prompts are left out (on_long_prompt is 'skip'): {_some(left_out)}.")
        stream.source, stream.size = _Chosen(stream.source, kept), len(kept)


_FIX = (
    " Lower max_completion_length, drop the long prompts (on_long_prompt: skip), or use a model with a longer context."
)


def _some(sentences: list[str]) -> str:
    more = f"; and {len(sentences) - _NAMED} more" if len(sentences) > _NAMED else ""
    return f"{'; '.join(sentences[:_NAMED])}{more}"


def _skipping(check: PromptCheck, *, skip: bool, warn: Callable[[str], None]) -> Callable[[int, Any], bool]:
    """Checks prompts when they come by: whether the one at a position of the stream can be used."""
    in_a_row, warned = 0, False

    def usable(position: int, prompt: Any) -> bool:
        nonlocal in_a_row, warned
        fault = check.fault(prompt)
        if fault is None:
            in_a_row = 0
            return True
        sentence = f"prompt {position} of the stream {fault.sentence}"
        in_a_row += 1
        if not skip or in_a_row > MAX_UNUSABLE:
            raise ConfigError(f"{sentence}.{_FIX if fault.too_long else ''}")
        if not warned:
            warn(f"{sentence}: it is passed over, and so are others that cannot be used.")
            warned = True
        return False

    return usable
