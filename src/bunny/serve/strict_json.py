"""JSON as its standard has it, and no more: what two readers could understand differently, or what only costs memory,
is refused.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any, NoReturn

DIGITS = 20  # of a whole number: enough for 64 bits
SURROGATE = re.compile("[\ud800-\udfff]")


def read(data: bytes | bytearray, depth: int = 32, values: int = 100_000) -> Any:
    """The value of a JSON text in UTF-8. depth: of nesting; values: lists, objects and commas at most, also within
    texts (a list takes twenty times the memory of its two letters).

    Raises ValueError, in words for the sender: no JSON, NaN or infinity, a key twice in an object, half a surrogate
    pair, whole numbers over 20 digits.

    >>> read(b'{"a": [1, 2.5]}')
    {'a': [1, 2.5]}
    >>> read(b'{"a": 1, "a": 2}')
    Traceback (most recent call last):
    ValueError: the key "a" comes twice in an object
    """
    if sum(data.count(mark) for mark in (b"[", b"{", b",")) > values:
        raise ValueError(f"more than {values} values")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"no UTF-8 at byte {error.start}") from None
    try:
        tree = json.loads(
            text, parse_constant=_constant, parse_int=_whole, parse_float=_float, object_pairs_hook=_object
        )
    except json.JSONDecodeError as error:
        raise ValueError(f"{error.msg} at line {error.lineno}, column {error.colno}") from None
    except RecursionError:
        raise ValueError(f"nested deeper than {depth}") from None
    _check(tree, depth)
    return tree


def _constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


def _whole(digits: str) -> int:
    if len(digits) > DIGITS:
        raise ValueError(f"a whole number of {len(digits)} digits")
    return int(digits)


def _float(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise ValueError("a number beyond the range of a double")
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"the key {json.dumps(twice[:40])} comes twice in an object")
    return found


def _check(tree: Any, depth: int) -> None:
    """Nesting, and texts that have no UTF-8."""
    level = [tree]
    for _ in range(depth + 1):
        below: list[Any] = []
        for value in level:
            if isinstance(value, str):
                _check_text(value)
            elif isinstance(value, dict):
                below += [*value.keys(), *value.values()]
            elif isinstance(value, list):
                below += value
        if not below:
            return
        level = below
    raise ValueError(f"nested deeper than {depth}")


def _check_text(text: str) -> None:
    if not text.isascii() and SURROGATE.search(text):
        raise ValueError("a text with half a surrogate pair")
