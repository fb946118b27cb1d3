"""Plain values as JSON text, and back by a reader that can build nothing else.

A value is None, a bool, int, float, complex, Fraction, Decimal, str or bytes, or a list, tuple, dict, set or frozenset
of values.
What JSON has stands for itself; the rest is an object with one key that names the type, such as
`{"tuple": [1, 2]}`, so that no dict is ever written as an object. Types are compared by identity: an instance
of a subclass, whatever it calls itself, is no value. Named tuples, members of enumerations of numbers or texts, NumPy's
numbers and arrays and the dicts of `collections` are written as the builtin values that they equal.

The writer runs next to hostile code, so the reader takes nothing for granted: size, depth, digits and hash
collisions are bounded before anything is built from them.
"""

from __future__ import annotations

import json
import re
import sys
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Callable
from decimal import Decimal
from enum import EnumMeta
from fractions import Fraction
from itertools import accumulate
from typing import Any

MAX_DEPTH = 100
_MAX_COLLISIONS = 100  # members of one set or dict with the same hash: more would take quadratic time
_MAX_FRACTION_DIGITS = 20_000  # reducing a fraction takes quadratic time
_NUMBER_BITS = 63  # larger integers are written in hexadecimal, which is read in linear time
_ONCE = "+" if sys.version_info >= (3, 11) else ""  # possessive, where Python knows that
# matches wherever it starts: linear time
_STRING = re.compile(rf'"[^"\\]*{_ONCE}(?:\\.[^"\\]*{_ONCE})*{_ONCE}(?:"|\\?\Z)', re.DOTALL)
_LONG_NUMBER = re.compile(r"\d{400}")
_NOT_BRACKETS = {code: None for code in range(128) if chr(code) not in "[]{}"}
_DEPTH_CHANGE = {"[": 1, "{": 1, "]": -1, "}": -1}
# A metaclass can lie about equality, not about identity.
_DICTS = frozenset(map(id, (dict, Counter, OrderedDict, defaultdict)))
_NUMPY_KINDS = frozenset("biufcSU")


class CodecError(ValueError):
    """The object is no plain value, or the text does not describe one."""


class TooLarge(CodecError):
    """The value takes more bytes than are allowed."""


def encode(value: Any, max_bytes: int) -> str:
    """Write a value as ASCII text.

    Raises:
        CodecError: An object inside is no plain value, values are nested more than `MAX_DEPTH` deep, or the text
            would be longer than `max_bytes` (`TooLarge`).
    """
    text = "".join(_encode(_Writer(max_bytes).plain(value, MAX_DEPTH), 0))
    if len(text) > max_bytes:
        raise TooLarge(f"the value takes {len(text)} bytes, {max_bytes} are allowed")
    return text


class _Writer:
    def __init__(self, max_members: int) -> None:
        self.members_left = max_members  # a list can hold itself a million times over in a few lines

    def plain(self, value: Any, depth: int) -> Any:
        kind = type(value)
        if value is None or kind is bool or kind is str or kind is float:
            return value
        if kind is int:
            return value if value.bit_length() <= _NUMBER_BITS else {"int": hex(value)}
        if depth == 0:
            raise CodecError(f"the value is nested more than {MAX_DEPTH} deep")
        if kind is list:
            return self.members(value, depth)
        if kind is tuple or kind is set or kind is frozenset:
            return {kind.__name__: self.members(value, depth)}
        if id(kind) in _DICTS:
            keys, values = self.members(dict.keys(value), depth), self.members(dict.values(value), depth)
            return {"dict": [keys, values]}
        if kind is bytes:
            return {"bytes": value.hex()}
        if kind is complex:
            return {"complex": [value.real, value.imag]}
        if kind is Fraction and type(value.numerator) is type(value.denominator) is int:
            return {"fraction": [hex(value.numerator), hex(value.denominator)]}
        if kind is Decimal:
            return {"decimal": str(value)}
        return self.flat(value, kind, depth)

    def members(self, values: Any, depth: int) -> list[Any]:
        self.members_left -= len(values)
        if self.members_left < 0:
            raise TooLarge("the value has more members than bytes are allowed")
        return [self.plain(value, depth - 1) for value in values]

    def flat(self, value: Any, kind: type, depth: int) -> Any:
        """Write a named tuple, a member of an enumeration of numbers or texts, or NumPy's values as what they equal."""
        base = next((base for base in kind.__mro__ if base is tuple or base is int or base is str), None)
        if base is tuple and type(getattr(kind, "_fields", None)) is tuple:
            return self.plain(tuple(tuple.__iter__(value)), depth)
        if base is int and type(kind) is EnumMeta:
            return self.plain(int.__int__(value), depth)
        if base is str and type(kind) is EnumMeta:
            return str.__str__(value)
        numpy = sys.modules.get("numpy")
        kinds = map(id, (numpy.ndarray, *numpy.sctypeDict.values())) if numpy else ()
        if id(kind) in kinds and value.dtype.kind in _NUMPY_KINDS:
            self.members_left -= value.size
            if self.members_left < 0:
                raise TooLarge("the value has more members than bytes are allowed")
            builtin = value.tolist()
            if type(builtin) is not kind:  # a long double stays what it is
                return self.plain(builtin, depth)
        raise CodecError(f"an object of type {kind.__name__!r} is no plain value")


def read(text: str) -> Any:
    """Read a value that `encode` wrote where nobody could interfere."""
    return _scan(text, 0)[0]


def decode(text: bytes | str, max_bytes: int) -> Any:
    """Read a value that anybody may have written.

    Raises:
        CodecError: The text is longer than `max_bytes`, is nested too deep, holds too long a number or members with
            colliding hashes, or is not what `encode` writes.
    """
    if len(text) > max_bytes:
        raise TooLarge(f"the value takes {len(text)} bytes, {max_bytes} are allowed")
    try:
        if isinstance(text, bytes):
            text = text.decode("ascii")
        structure = _STRING.sub("", text)
        brackets = structure.translate(_NOT_BRACKETS)
        if max(accumulate(map(_DEPTH_CHANGE.__getitem__, brackets)), default=0) > 3 * MAX_DEPTH:
            raise CodecError(f"the value is nested more than {MAX_DEPTH} deep")
        if _LONG_NUMBER.search(structure):
            raise CodecError("the value holds a number with more than 400 digits in a row")
        value, end = _scan(text, 0)
        if end != len(text):
            raise CodecError(f"not a plain value: it ends after {end} of {len(text)} characters")
        return value
    except CodecError:
        raise
    except (ValueError, TypeError, KeyError, RecursionError, ArithmeticError, StopIteration) as error:
        raise CodecError(f"not a plain value: {type(error).__name__}: {str(error)[:200]}") from None


def _untag(tagged: dict[str, Any]) -> Any:
    ((tag, body),) = tagged.items()
    return _READERS[tag](body)


def _list(body: Any) -> list[Any]:
    if type(body) is not list:
        raise CodecError(f"members are {type(body).__name__}, not list")
    return body


def _hashable(body: Any) -> list[Any]:
    members = _list(body)
    if len(members) > _MAX_COLLISIONS and max(Counter(map(hash, members)).values()) > _MAX_COLLISIONS:
        raise CodecError(f"more than {_MAX_COLLISIONS} members share one hash")
    return members


def _dict(body: Any) -> dict[Any, Any]:
    keys, values = _list(body)
    return dict(zip(_hashable(keys), _list(values), strict=True))


def _fraction(body: Any) -> Fraction:
    numerator, denominator = _list(body)
    if len(numerator) + len(denominator) > _MAX_FRACTION_DIGITS:
        raise CodecError(f"a fraction has more than {_MAX_FRACTION_DIGITS} hexadecimal digits")
    return Fraction(int(numerator, 16), int(denominator, 16))


def _decimal(body: str) -> Decimal:
    if len(body) > _MAX_FRACTION_DIGITS:
        raise CodecError(f"a decimal has more than {_MAX_FRACTION_DIGITS} digits")
    if (value := Decimal(body)).is_snan():
        raise CodecError("a decimal that signals cannot be compared")
    return value


def _complex(body: Any) -> complex:
    real, imaginary = _list(body)
    return complex(float(real), float(imaginary))


_READERS: dict[str, Callable[[Any], Any]] = {
    "tuple": lambda body: tuple(_list(body)),
    "set": lambda body: set(_hashable(body)),
    "frozenset": lambda body: frozenset(_hashable(body)),
    "dict": _dict,
    "bytes": bytes.fromhex,
    "int": lambda body: int(body, 16),
    "complex": _complex,
    "fraction": _fraction,
    "decimal": _decimal,
}

# What `json` makes anew for every text, made once: in a process that has just been forked that is most of the work.
_encode = json.encoder.c_make_encoder(  # type: ignore[attr-defined]
    None, None, json.encoder.encode_basestring_ascii, None, ":", ",", False, False, True
)
_scan: Callable[[str, int], tuple[Any, int]] = json.JSONDecoder(object_hook=_untag).scan_once  # type: ignore[attr-defined]
