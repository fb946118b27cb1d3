"""`UnicodeText`: the space of all strings up to a length, in constant time.

`gymnasium.spaces.Text` enumerates its alphabet, which for Unicode costs over a second and close to 200 MB
per space, and cannot be read back from an asynchronous vector environment. A language task needs neither.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from gymnasium.spaces import Space
from gymnasium.vector.utils import create_shared_memory, read_from_shared_memory, write_to_shared_memory

from .numeric import is_count

_SAMPLE_LENGTH = 24  # characters: samples are for checkers and smoke tests, not for exploration
_SAMPLE_ALPHABET = "abcdefghijklmnopqrstuvwxyz 0123456789+-=.,:\\{}$éßñжώλ中文字数学あ한√≤∑🙂"
_HEADER_BYTES = 8  # each slot of shared memory starts with the byte length of its text


class UnicodeText(Space[str]):
    """Any `str` of at most `max_length` characters (code points); construction and membership are O(1).

    Args:
        max_length: Longest member, in characters.
        seed: Seed (or generator) of `sample`, as for every Gymnasium space.

    Raises:
        ValueError: `max_length` is not a positive integer.
    """

    def __init__(self, max_length: int = 2**20, *, seed: int | np.random.Generator | None = None) -> None:
        if not is_count(max_length):
            raise ValueError(f"UnicodeText: max_length={max_length!r} must be an integer of at least 1 (characters)")
        self.max_length = max_length
        super().__init__(seed=seed)

    @property
    def is_np_flattenable(self) -> bool:
        """Text has no fixed-size array form."""
        return False

    def sample(self, mask: None = None, probability: None = None) -> str:
        """Draw a short Unicode string (at most 24 characters) from the space's own generator.

        Raises:
            ValueError: `mask` or `probability` is given; neither has a meaning here.
        """
        if mask is not None or probability is not None:
            raise ValueError("UnicodeText.sample takes neither mask nor probability: leave both out")
        length = int(self.np_random.integers(min(self.max_length, _SAMPLE_LENGTH) + 1))
        picks = self.np_random.integers(len(_SAMPLE_ALPHABET), size=length)
        return "".join(_SAMPLE_ALPHABET[pick] for pick in picks)

    def contains(self, x: Any) -> bool:
        """Whether `x` is a string of at most `max_length` characters."""
        return isinstance(x, str) and len(x) <= self.max_length

    def __repr__(self) -> str:
        return f"UnicodeText(max_length={self.max_length})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, UnicodeText) and self.max_length == other.max_length

    @property
    def slot_bytes(self) -> int:
        """Bytes of shared memory that one text may need: UTF-8, at most 4 bytes a character."""
        return _HEADER_BYTES + 4 * self.max_length


class SharedTexts(Sequence[str]):
    """Live view of what the workers of an asynchronous vector environment wrote; copies are plain tuples."""

    def __init__(self, slots: np.ndarray) -> None:
        self._slots = slots  # [num_envs, slot_bytes] of uint8

    def __len__(self) -> int:
        return len(self._slots)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return tuple(self)[index]
        slot = self._slots[index]
        length = int.from_bytes(slot[:_HEADER_BYTES].tobytes(), "little")
        return slot[_HEADER_BYTES : _HEADER_BYTES + length].tobytes().decode("utf-8", "surrogatepass")

    def __iter__(self) -> Iterator[str]:
        return (self[index] for index in range(len(self)))

    def __deepcopy__(self, memo: dict[int, Any]) -> tuple[str, ...]:
        return tuple(self)


@create_shared_memory.register(UnicodeText)
def _create(space: UnicodeText, n: int = 1, ctx: Any = None) -> Any:
    return ctx.RawArray("B", n * space.slot_bytes)


@read_from_shared_memory.register(UnicodeText)
def _read(space: UnicodeText, shared_memory: Any, n: int = 1) -> SharedTexts:
    return SharedTexts(np.frombuffer(shared_memory, dtype=np.uint8).reshape(n, space.slot_bytes))


@write_to_shared_memory.register(UnicodeText)
def _write(space: UnicodeText, index: int, value: str, shared_memory: Any) -> None:
    text = value.encode("utf-8", "surrogatepass")
    start = index * space.slot_bytes
    end = start + _HEADER_BYTES + len(text)
    memoryview(shared_memory).cast("B")[start:end] = len(text).to_bytes(_HEADER_BYTES, "little") + text
