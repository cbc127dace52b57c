"""How MMMU's script reads free text (MMMU-Benchmark/MMMU `eval_utils.py`; the original Bunny has the same rules).

In: an answer, the choices. Out: a letter, or an empty string where the script would draw one at random; for open
questions everything in the answer that may be the result, and whether the gold answer is among it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

STRIPPED = ",.!?;:'"
TRIVIAL = frozenset(":,.!?;'")
CLUES = ("could be ", "so ", "is ", "thus ", "therefore ", "final ", "answer ", "result ")
NUMBERS = (
    re.compile(r"-?\b\d{1,3}(?:,\d{3})+\b"),  # 1,000
    re.compile(r"-?\d+(?:\.\d+)?[eE][+-]?\d+"),  # 1e-3
    re.compile(r"-?(?:\d+\.\d+|\.\d+|\d+\b)(?![eE][+-]?\d+)(?![,\d])"),
)

Value = str | float


def letter(text: str, choices: Mapping[str, str], lenient: bool = False) -> str:
    """The choice that the answer names last: in brackets, else standing alone, else (in a longer answer) by its words.

    choices: letter -> its text. lenient: lmms-eval's variant, where "xB " and "B." name a letter too.
    Empty where none of the rules finds anything.

    >>> letter("(A) or rather (B)", {"A": "cat", "B": "dog"})
    'B'
    """
    said = f" {bare(text)} "
    forms = ["({})", "{} ", "{}."] if lenient else ["({})", " {} "]
    for number, form in enumerate(forms):
        found = [choice for choice in choices if form.format(choice) in said]
        if found:
            where = "({})" if number == 0 else " {} "
            return _last(found, [said.rfind(where.format(choice)) for choice in found])
    low = said.lower()
    if len(said.split()) <= 5:
        return ""
    found = [choice for choice, words in choices.items() if words.lower() in low]
    return _last(found, [low.rfind(choices[choice].lower()) for choice in found]) if found else ""


def is_right(gold: Sequence[str], text: str) -> bool:
    """Whether an answer to an open question holds one of the gold answers: equal numbers (2 places), or its words."""
    wanted = [value for answer in gold for value in _values(answer)]
    words = [value for value in wanted if isinstance(value, str)]
    for value in results_in(text):
        if any(word in value for word in words) if isinstance(value, str) else value in wanted:
            return True
    return False


def results_in(text: str) -> list[Value]:
    """All that may be the result: what follows the last clue of each sentence, and the numbers in it."""
    parts = key_parts(text.strip().strip(".").lower(), re.compile(r"\.\s(?=[A-Z])|\n"), CLUES, last_only="=")
    parts += [number for part in parts for pattern in NUMBERS for number in pattern.findall(part)]
    return [value for part in parts for value in _values(part)]


def key_parts(text: str, sentences: re.Pattern[str], clues: Sequence[str], last_only: str = "") -> list[str]:
    """Of every sentence the shortest tail behind a clue (`last_only`: a clue in the last one only); else all of it."""
    found = []
    pieces = sentences.split(text)
    for number, piece in enumerate(pieces):
        known = (*clues, last_only) if last_only and number == len(pieces) - 1 else clues
        shortest = ""
        for clue in known:
            tail = piece.rsplit(clue, 1)[-1].strip() if clue in piece else ""
            if clue in piece and (not shortest or len(tail) < len(shortest)):
                shortest = tail
        if shortest and shortest not in TRIVIAL:
            found.append(shortest)
    return found or [text]


def number_in(text: str) -> float | None:
    """The text as a number rounded to two places, or None; commas do not count."""
    try:
        return round(float(text.replace(",", "")), 2)
    except ValueError:
        return None


def _values(text: str) -> list[Value]:
    plain = text.strip()
    number = number_in(plain)
    if number is not None:
        return [number]
    low = plain.lower()
    return [f" {low}", f"{low} "] if len(low) == 1 else [low]  # a single letter is in every word


def bare(text: str) -> str:
    """The marks taken off both ends, one kind after the other."""
    for mark in STRIPPED:
        text = text.strip(mark)
    return text


def _last(found: Sequence[str], places: Sequence[int]) -> str:
    return found[max(range(len(found)), key=places.__getitem__)]
