"""Values as text and back, and what hostile text may not do to the reader."""

import json
import math
import sys
from collections import Counter, OrderedDict, defaultdict, deque, namedtuple
from decimal import Decimal
from enum import IntEnum, StrEnum
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from envs.sandbox.inside import codec
from envs.sandbox.inside.codec import CodecError, TooLarge, decode, encode

SIZE = 1 << 20

scalars = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.complex_numbers(), st.binary(), st.text(st.characters())
)
keys = st.one_of(scalars, st.tuples(scalars, scalars), st.frozensets(scalars))
values = st.recursive(
    scalars,
    lambda inner: st.one_of(st.lists(inner), st.tuples(inner, inner), st.sets(keys), st.dictionaries(keys, inner)),
    max_leaves=10,
)


def outline(value):
    """A value as text, types included, without the chance order of sets."""
    if isinstance(value, (set, frozenset)):
        return f"{type(value).__name__}({sorted(map(outline, value))})"
    if isinstance(value, (list, tuple)):
        return f"{type(value).__name__}({[outline(member) for member in value]})"
    if isinstance(value, dict):
        return f"dict({[(outline(key), outline(member)) for key, member in value.items()]})"
    return repr(value)


@given(values)
def test_round_trip(value):
    text = encode(value, SIZE)
    assert text.isascii()
    assert outline(decode(text, SIZE)) == outline(decode(text.encode(), SIZE)) == outline(value)


@pytest.mark.parametrize(
    "value",
    [2**63, -(2**63) - 1, 10**300, -(10**5000), 1 << 100_000, True, False, 0.1 + 0.2, -0.0, math.inf, "\0\ud800"],
    ids=lambda value: type(value).__name__,
)
def test_scalars_keep_type_and_value(value):
    twin = decode(encode(value, SIZE), SIZE)
    assert type(twin) is type(value) and twin == value
    assert not isinstance(value, float) or math.copysign(1, twin) == math.copysign(1, value)


def test_nan():
    assert math.isnan(decode(encode(math.nan, SIZE), SIZE))


class Int(int):
    def __eq__(self, other):
        return True

    __hash__ = int.__hash__


class Meta(type):
    def __eq__(cls, other):
        return True

    def __hash__(cls):
        return hash(dict)

    def __instancecheck__(cls, instance):
        return True


class Liar(metaclass=Meta):
    __class__ = dict


class Str(str):
    pass


class List(list):
    pass


Pair = namedtuple("Pair", "a b")
Number = IntEnum("Number", "ONE TWO")


class Letter(StrEnum):
    A = "a"


@pytest.mark.parametrize(
    "value",
    [
        *[
            object(),
            Int(3),
            Str("x"),
            List(),
            Liar(),
            deque(),
            range(3),
            iter([]),
            bytearray(),
        ],
        *[lambda: 0, int, ..., [Int(3)], {"a": [Int(3)]}, {Str("a"): 1}, (i for i in "ab"), memoryview(b"x"), math],
        *[
            np.array([object()]),
            np.longdouble(1),
            np.datetime64(0, "s"),
            np.ma.array([1]),
            np.zeros(2).view(np.recarray),
        ],
    ],
    ids=lambda value: type(value).__name__,
)
def test_anything_else_is_no_value(value):
    with pytest.raises(CodecError, match="no plain value"):
        encode(value, SIZE)


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (Pair(1, Pair(2, 3)), (1, (2, 3))),
        (Number.ONE, 1),
        (Letter.A, "a"),
        (Fraction(1, 2), Fraction(1, 2)),
        (Decimal("0.10"), Decimal("0.10")),
        (np.int64(3), 3),
        (np.uint8(200), 200),
        (np.float32(0.5), 0.5),
        (np.bool_(True), True),
        (np.str_("x"), "x"),
        (np.arange(4).reshape(2, 2), [[0, 1], [2, 3]]),
        (np.array(2.5), 2.5),
        ({np.int64(1): np.zeros(2)}, {1: [0.0, 0.0]}),
        (Counter("aab"), {"a": 2, "b": 1}),
        (OrderedDict(b=1, a=2), {"b": 1, "a": 2}),
        (defaultdict(list, a=[1]), {"a": [1]}),
    ],
    ids=repr,
)
def test_numpy_and_the_dicts_of_collections_become_builtin(value, plain):
    twin = decode(encode(value, SIZE), SIZE)
    assert type(twin) is type(plain) and repr(twin) == repr(plain)


def test_writer_is_bounded():
    cyclic: list = []
    cyclic.append(cyclic)
    with pytest.raises(CodecError, match="nested more than 100 deep"):
        encode(cyclic, SIZE)
    laughs: list = []
    for _ in range(60):
        laughs = [laughs] * 10
    with pytest.raises(TooLarge):
        encode(laughs, 10_000)
    with pytest.raises(TooLarge, match="bytes, 10 are allowed"):
        encode("x" * 10, 10)
    with pytest.raises(TooLarge):
        encode(np.zeros(SIZE + 1), SIZE)
    deep: list = []
    for _ in range(codec.MAX_DEPTH - 1):
        deep = [deep]
    assert decode(encode(deep, SIZE), SIZE) == deep


@pytest.mark.parametrize(
    "text",
    [
        *[
            "",
            "{}",
            '{"tuple": 1}',
            '{"tuple": [1], "list": [2]}',
            '{"object": []}',
            '{"set": [[1]]}',
            "[1",
            "nul",
            "\0",
        ],
        *[
            '{"dict": [[1], []]}',
            '{"dict": [[[]], [1]]}',
            '{"bytes": "x"}',
            '{"int": 3}',
            '{"int": "x"}',
            '{"bytes": 3}',
        ],
        *['{"complex": [1]}', '{"complex": "12"}', '{"__class__": "os.system"}', "é", '"\\', '{"tuple": "ab"}'],
    ],
)
def test_reader_refuses_what_the_writer_never_writes(text):
    with pytest.raises(CodecError):
        decode(text, SIZE)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 100_000 + "]" * 100_000, "nested"),
        ("[" * 100_000, "nested"),
        ('{"tuple":[' * 200 + "]}" * 200, "nested"),
        ('["' + '\\"' * 400_000, "not a plain value"),
        ("9" * 10_000, "400 digits"),
        ("-1e" + "9" * 10_000, "400 digits"),
        ('{"set":[' + ",".join(str(i * sys.hash_info.modulus) for i in range(1000)) + "]}", "share one hash"),
        ('{"dict":[[' + ",".join(str(i * sys.hash_info.modulus) for i in range(1000)) + "],[]]}", "share one hash"),
        ('"' + "x" * SIZE + '"', "are allowed"),
    ],
    ids=["closed", "open", "tagged", "quotes", "integer", "exponent", "set", "dict", "size"],
)
def test_hostile_text_costs_little(text, message):
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(1_000_000)
    try:
        with pytest.raises(CodecError, match=message):
            decode(text, SIZE)
    finally:
        sys.setrecursionlimit(limit)


@given(st.binary(max_size=200))
def test_any_bytes_give_a_plain_value_or_an_error(data):
    try:
        value = decode(data, SIZE)
    except CodecError:
        return
    encode(value, SIZE)


@given(
    st.recursive(
        st.sampled_from([1, "x", None, 1.5]),
        lambda x: st.lists(x) | st.dictionaries(st.sampled_from(["tuple", "set", "dict", "int", "bytes", "a"]), x),
    )
)
def test_any_json_gives_a_plain_value_or_an_error(tree):
    try:
        value = decode(json.dumps(tree), SIZE)
    except CodecError:
        return
    encode(value, SIZE)
