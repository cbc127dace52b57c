"""Reading free text: what value an answer stands for, and how sure that reading is.

In: any string at all. Out: normalised text, or `Parsed` with status ok, fallback, empty or malformed. Nothing here
raises, guesses at random or looks at the gold answer. Every function is idempotent: reading what was read changes
nothing.
"""

from __future__ import annotations

import re
import unicodedata

from bunny.core.types import Parsed

_LETTER = r"(?<![^\W_])([{letters}])(?![^\W_])"  # a letter that is no part of a longer word


def normalise(text: str) -> str:
    """Lower case, compatibility forms unified (NFKC), punctuation and symbols as gaps, single spaces.

    >>> normalise("  A Yellow\\n(ish) CIRCLE. ")
    'a yellow ish circle'
    """
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).lower())
    kept = "".join(" " if unicodedata.category(letter)[0] in "PSCZ" else letter for letter in folded)
    return " ".join(kept.split())


def words(text: str) -> Parsed:
    """The normalised text itself; `empty` if nothing is left of it.

    >>> words("A circle.")
    Parsed(value='a circle', status='ok')
    """
    value = normalise(text)
    return Parsed(value, "ok" if value else "empty")


def yes_no(text: str) -> Parsed:
    """`yes` or `no` if that is the first word; otherwise `malformed` (or `empty`) with no value.

    Strict on purpose: POPE's own script turns everything without "no" or "not" into "yes".

    >>> yes_no("Yes, there is a dog."), yes_no("I see no dog")
    (Parsed(value='yes', status='ok'), Parsed(value='', status='malformed'))
    """
    first = normalise(text).partition(" ")[0]
    if first in ("yes", "no"):
        return Parsed(first)
    return Parsed("", "malformed" if first else "empty")


def choice(text: str, letters: str = "ABCD") -> Parsed:
    """The letter of a multiple-choice answer, as a capital.

    `ok`: the answer is the letter, or opens with it and a mark ("B", "(b)", "B. a dog", but not "A, B"). `fallback`:
    exactly one of the letters stands alone, as a capital, somewhere ("The answer is B"); the article in "A dog" does
    not count.

    >>> choice("(b)"), choice("The answer is C."), choice("A dog")
    (Parsed(value='B', status='ok'), Parsed(value='C', status='fallback'), Parsed(value='', status='malformed'))
    """
    plain = unicodedata.normalize("NFKC", text).strip()
    if not normalise(plain):
        return Parsed("", "empty")
    opening = re.match(rf"[\W_]*([{letters}{letters.lower()}])[\W_]*(?:$|(?<=[^\s\w]))", plain)
    if opening:
        others = set(normalise(plain[opening.end(1) :]).upper().split()) - {opening[1].upper()}
        listed = others and others <= {*letters, "OR", "AND"}  # "A, B" and "A/B" name no letter
        return Parsed("", "malformed") if listed else Parsed(opening[1].upper())
    alone = {found[1] for found in re.finditer(_LETTER.format(letters=letters), plain)}
    if re.search(r"\bA\s+(?!or\b|and\b)[a-z]", plain):
        alone.discard("A")
    return Parsed(alone.pop(), "fallback") if len(alone) == 1 else Parsed("", "malformed")
