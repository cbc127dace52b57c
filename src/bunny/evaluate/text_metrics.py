"""How near two texts are."""

from __future__ import annotations


def edits(one: str, other: str) -> int:
    """Levenshtein's distance: insertions, deletions and replacements of letters.

    >>> edits("kitten", "sitting")
    3
    """
    row = list(range(len(other) + 1))
    for at, letter in enumerate(one, 1):
        diagonal, row[0] = row[0], at
        for column, against in enumerate(other, 1):
            diagonal, row[column] = (
                row[column],
                min(row[column] + 1, row[column - 1] + 1, diagonal + (letter != against)),
            )
    return row[-1]


def anls(said: str, gold: str, least: float = 0.5) -> float:
    """One minus the edit distance over the longer length; 0 below `least` (Biten et al. 2019, arXiv:1907.00490).

    >>> anls("hat", "hat"), anls("hut", "hat") > 0.6, anls("dog", "hat")
    (1.0, True, 0.0)
    """
    if not said or not gold:
        return 0.0
    near = 1 - edits(said[: 4 * len(gold) + 64], gold) / max(len(said), len(gold))
    return near if near >= least else 0.0
