"""Balanced yes/no questions from pictures with known words, so that a model that does not look is at chance.

In: a Parquet file that says for every picture which words are surely there and which surely not. Out: which words are
asked of which picture, every word as often with the answer yes as with no, and every picture too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bunny.core.errors import UserError
from bunny.core.log import log

Asked = dict[int, dict[str, str]]
"""Picture (row) -> word -> "yes" or "no"."""


@dataclass(frozen=True)
class Known:
    """What a file says of its pictures, row by row. present, absent: words to ask with the answer yes, and with no."""

    ids: list[str]
    present: list[frozenset[str]]
    absent: list[frozenset[str]]


def read_words(path: Path, confusable: Mapping[str, Sequence[str]], wanted: Sequence[str]) -> Known:
    """The columns `words`, `absent` and `id` of a Parquet file; UserError if it cannot be read or has no `words`.

    Without `absent`, a word is absent from a picture that has words, but neither it nor one that is confusable with
    it (in either direction). Without `id`, a picture's row number names it. wanted: keep only these words; empty: all.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not path.is_file():
        raise UserError(f"{path}: no such file", fix="check the benchmark's `path`; it is relative to the recipe")
    try:
        names = pq.read_schema(path).names
        table = pq.read_table(path, columns=[name for name in ("id", "words", "absent") if name in names]).to_pydict()
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"{path}: cannot be read as Parquet: {str(error).splitlines()[0]}") from None
    if "words" not in table:
        raise UserError(f"{path}: no column `words`", fix="columns there: " + ", ".join(names))
    present = [frozenset(words or ()) for words in table["words"]]
    every = frozenset[str]().union(*present)
    if "absent" in table:
        absent = [frozenset(words or ()) for words in table["absent"]]
    else:
        log.warning("%s: no column `absent`; every word that is not listed is taken to be absent", path)
        absent = [every - _beside(words, confusable) if words else frozenset() for words in present]
    keep = frozenset(wanted) or every
    ids = [str(id) for id in table.get("id", range(len(present)))]
    return Known(ids, [words & keep for words in present], [words & keep for words in absent])


def _beside(words: frozenset[str], confusable: Mapping[str, Sequence[str]]) -> frozenset[str]:
    """The words shown and all that are confusable with one of them."""
    pairs = {(one, other) for one, others in confusable.items() for other in others}
    pairs |= {(other, one) for one, other in pairs}
    return words | {other for one, other in pairs if one in words}


def pair_up(
    present: Sequence[frozenset[str]],
    absent: Sequence[frozenset[str]],
    pictures: int | None,
    rounds: int,
    rng: np.random.Generator,
) -> Asked:
    """The questions, at most 2 × `rounds` about one picture, about at most `pictures` pictures.

    present, absent: words that row i may be asked with the answer yes and with the answer no. In each round the
    pictures are shuffled and matched: a word that only the first shows and a word that only the second shows are
    asked of both. Nothing is asked twice of a picture.
    """
    asked: Asked = {}
    rows = [row for row, words in enumerate(present) if words]
    for turn in range(rounds):
        waiting: list[int] = []
        for row in rng.permutation(rows).tolist():
            if turn == 0 and pictures is not None and len(asked) + 2 > pictures:
                break
            mate = next((other for other in waiting if _swap(row, other, present, absent, asked, rng)), None)
            if mate is None:
                waiting.append(row)
            else:
                waiting.remove(mate)
        rows = sorted(asked)
    return asked


def _swap(
    one: int,
    other: int,
    present: Sequence[frozenset[str]],
    absent: Sequence[frozenset[str]],
    asked: Asked,
    rng: np.random.Generator,
) -> bool:
    """Ask both pictures about a word only `one` shows and a word only `other` shows; False if there are none."""
    done = asked.get(one, {}).keys() | asked.get(other, {}).keys()
    mine = sorted((present[one] & absent[other]) - done)
    theirs = sorted((present[other] & absent[one]) - done)
    if not mine or not theirs:
        return False
    for word, shows, lacks in ((rng.choice(mine), one, other), (rng.choice(theirs), other, one)):
        asked.setdefault(shows, {})[str(word)] = "yes"
        asked.setdefault(lacks, {})[str(word)] = "no"
    return True
