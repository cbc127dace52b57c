"""Errors a user can act on: what happened, where, and how to mend it, in one line."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Something outside the program must change. The command line prints it in one line and exits with 2.

    >>> str(UserError("pool.parquet: no column 'title'", fix="name the caption column with `pool.caption=…`"))
    "pool.parquet: no column 'title'; name the caption column with `pool.caption=…`"
    """

    def __init__(self, what: str, *, fix: str = "") -> None:
        super().__init__(f"{what}; {fix}" if fix else what)
        self.what = what
        self.fix = fix


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint that names the known word closest to `name`, or lists all of them.

    >>> nearest("learning_rte", ["learning_rate", "seed"])
    'did you mean `learning_rate`?'
    """
    words = sorted(known)
    close = difflib.get_close_matches(name, words, n=1)
    if close:
        return f"did you mean `{close[0]}`?"
    return "known: " + ", ".join(words) if words else "nothing is known here"
