"""Private tests as LiveCodeBench packs them: Base64 of zlib of a pickle that holds one string.

Reading a pickle can run any code, so it is not read as one: of its instructions only those count that hold a string,
and any other than those around a string is refused.
"""

from __future__ import annotations

import base64
import pickletools
import zlib

MAX_BYTES = 1 << 29
"""Most bytes that packed tests may take when they are unpacked."""

_STRINGS = frozenset({"UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"})
_AROUND = frozenset({"PROTO", "FRAME", "MEMOIZE", "PUT", "BINPUT", "LONG_BINPUT", "STOP"})


def unpack(text: str, *, max_bytes: int = MAX_BYTES) -> str:
    """Return the string that is packed in `text`.

    Raises:
        ValueError: It is not packed like that, holds something else than one string, or is too large.
    """
    inflate = zlib.decompressobj()
    try:
        data = inflate.decompress(base64.b64decode(text, validate=True), max_bytes)
    except zlib.error as error:
        raise ValueError(str(error)) from error
    if not inflate.eof:
        raise ValueError(f"it is cut off, or takes more than {max_bytes} bytes")
    strings: list[str] = []
    for instruction, argument, _ in pickletools.genops(data):
        if instruction.name in _STRINGS:
            strings.append(str(argument))
        elif instruction.name not in _AROUND:
            raise ValueError(
                f"its pickle has the instruction {instruction.name}: it must hold one string and nothing else"
            )
    if len(strings) != 1:
        raise ValueError(f"its pickle holds {len(strings)} strings: it must hold one")
    return strings[0]
