"""What captions are made of: strings in; letters, digits, words, scripts and repetitions of each out, as arrays.

A block of strings is looked at as one array of code points: a tenth of the time that Python takes string by string.
"""

from __future__ import annotations

import sys
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt

from bunny.core.types import FloatArray, IntArray

LETTER, DIGIT, MARK, SPACE, END = 1, 2, 4, 8, 16  # bits of a code point's kind; MARK: punctuation and symbols
_KINDS = {"L": LETTER, "N": DIGIT, "P": MARK, "S": MARK}


@dataclass(frozen=True, slots=True)
class Counted:
    """(n,) int64 each, of n strings. characters: code points; filled: those that are no white space; words: as
    `str.split()` counts; letters and digits of any script, marks (punctuation, symbols): by Unicode category."""

    characters: IntArray
    filled: IntArray
    words: IntArray
    letters: IntArray
    digits: IntArray
    marks: IntArray


def count(texts: Sequence[str]) -> Counted:
    """How many characters of each kind.

    >>> count(["Two words, 1 digit!"]).letters
    array([13])
    """
    points, ends = _code_points(texts)
    kind = _kinds()[points]
    kind[ends] = END | SPACE  # between two strings
    starts_word = (kind & SPACE) == 0
    starts_word[1:] &= (kind[:-1] & SPACE) != 0
    return Counted(
        characters=np.diff(ends, prepend=-1) - 1,
        filled=_per_text((kind & SPACE) == 0, ends),
        words=_per_text(starts_word, ends),
        letters=_per_text((kind & LETTER) != 0, ends),
        digits=_per_text((kind & DIGIT) != 0, ends),
        marks=_per_text((kind & MARK) != 0, ends),
    )


def script_share(texts: Sequence[str], scripts: Sequence[str]) -> FloatArray:
    """(n,) share of each string's letters that belong to the scripts; NaN for a string without letters.

    scripts: first words of Unicode names: latin, cyrillic, greek, arabic, cjk, hiragana, katakana, hangul, thai …

    >>> script_share(["cat", "кот cat", "12"], ["latin"])
    array([1. , 0.5, nan])
    """
    points, ends = _code_points(texts)
    names, table = _scripts()
    numbers = [names.index(script.upper()) for script in scripts if script.upper() in names]
    letters = _per_text((_kinds()[points] & LETTER) != 0, ends)
    inside = _per_text(np.isin(table[points], numbers), ends)
    return np.where(letters > 0, inside / np.maximum(letters, 1), np.nan)


def known_scripts() -> list[str]:
    """Names that `script_share` knows, in small letters."""
    return sorted(name.lower() for name in _scripts()[0] if name)


def repeated_share(text: str, size: int = 1) -> float:
    """Share of a text's runs of `size` words that it has had before (upper and lower case are the same).

    >>> repeated_share("sale sale Sale now")
    0.5
    """
    words = text.casefold().split()
    runs = list(zip(*(words[start:] for start in range(size)), strict=False))
    return 1 - len(set(runs)) / len(runs) if runs else 0.0


def _code_points(texts: Sequence[str]) -> tuple[npt.NDArray[np.uint32], IntArray]:
    """All strings one after the other, each with a line feed behind it; the places of those line feeds."""
    joined = "\n".join([*texts, ""]).encode("utf-32-le", "surrogatepass")
    sizes = np.fromiter((len(text) for text in texts), np.int64, len(texts))
    return np.frombuffer(joined, np.uint32), np.cumsum(sizes + 1) - 1


def _per_text(marked: npt.NDArray[np.bool_], ends: IntArray) -> IntArray:
    """(n,) how many marked places each string has."""
    return np.diff(np.cumsum(marked, dtype=np.int64)[ends], prepend=0)


@cache
def _kinds() -> npt.NDArray[np.uint8]:
    """Code point -> its kind."""
    kinds = np.zeros(sys.maxunicode + 1, np.uint8)
    for point in range(len(kinds)):
        character = chr(point)
        kinds[point] = _KINDS.get(unicodedata.category(character)[0], 0) | (SPACE if character.isspace() else 0)
    return kinds


@cache
def _scripts() -> tuple[list[str], npt.NDArray[np.uint16]]:
    """Names of scripts, and code point -> number of its script; number 0 has no name: what is no letter."""
    numbers = {"": 0}
    table = np.zeros(sys.maxunicode + 1, np.uint16)
    for point in np.flatnonzero(_kinds() & LETTER):
        first = unicodedata.name(chr(point), "").partition(" ")[0].partition("-")[0]
        table[point] = numbers.setdefault(first, len(numbers))
    return list(numbers), table
