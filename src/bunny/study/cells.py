"""The cells of a study: one selection at one share, with one seed and one size of model.

In: a `Study`. Out: `Cell`s in the order in which they are run: whole seeds first, so that an interrupted study has all
selections at fewer seeds rather than a few selections at all seeds.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatch

from bunny.core.errors import UserError, nearest
from bunny.study.recipe import Study


@dataclass(frozen=True, slots=True)
class Cell:
    """share: of the pool's rows; None: all that the selection leaves."""

    selection: str
    share: float | None
    seed: int
    size: str

    @property
    def part(self) -> str:
        """The set that it learns from, by a name that files can have.

        >>> Cell("only dedup", 0.25, 1, "base").part
        'only-dedup.25.s1'
        """
        share = "all" if self.share is None else f"{100 * self.share:g}"
        return f"{re.sub('[^A-Za-z0-9_]+', '-', self.selection)}.{share}.s{self.seed}"

    @property
    def name(self) -> str:
        """Its own name, as `--cells` patterns see it: SELECTION.SHARE.sSEED.SIZE."""
        return f"{self.part}.{self.size}"


def cells_of(study: Study, pattern: str = "*") -> list[Cell]:
    """All cells whose name fits a pattern such as `random.*.s0.*`. Raises UserError if none does."""
    every = list(_cross(study))
    found = [cell for cell in every if any(fnmatch(cell.name, one) for one in pattern.split(","))]
    if not found:
        raise UserError(f"no cell is called `{pattern}`", fix=nearest(pattern, [cell.name for cell in every]))
    return found


def _cross(study: Study) -> Iterator[Cell]:
    choices = study.choices()
    known = [share for choice in choices.values() for share in choice.shares]
    for size in study.sizes:
        for seed in study.seeds:
            for share in (None, *dict.fromkeys([*study.shares, *known])):
                for selection, choice in choices.items():
                    if share in ((None,) if choice.whole else choice.shares or study.shares):
                        yield Cell(selection, share, seed, size)
