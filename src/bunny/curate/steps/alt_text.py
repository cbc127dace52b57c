"""Alt-text junk: file names, camera numbers, web addresses, stock-photo boilerplate where a caption should be."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from pydantic import model_validator

from bunny.core.errors import nearest
from bunny.core.types import Decision, Pool
from bunny.curate.patterns import Kind, first_kind, read_kinds
from bunny.curate.step import OrderedStep, column, decision
from bunny.curate.texts import blocks

LIST = Path(__file__).parents[1] / "alt_text.yaml"


class AltText(OrderedStep):
    """Drops captions that match a kind of junk in `curate/alt_text.yaml`; the reason names the kind."""

    only: tuple[str, ...] = ()  # kinds to look for; default: all
    leave_out: tuple[str, ...] = ()  # kinds not to look for
    text: str = "caption"  # the column

    @model_validator(mode="after")
    def _known_kinds(self) -> AltText:
        known = [kind.name for kind in kinds()]
        for name in (*self.only, *self.leave_out):
            if name not in known:
                raise ValueError(f"no kind of junk is called `{name}`, {nearest(name, known)}")
        return self

    def look(self, pool: Pool, rng: np.random.Generator) -> Decision:
        wanted = [kind for kind in kinds() if kind.name not in self.leave_out]
        wanted = [kind for kind in wanted if kind.name in self.only] if self.only else wanted
        reasons = np.full(len(pool), "", dtype=object)
        for start, some in blocks(column(pool, self.text, "alt_text")):
            reasons[start : start + len(some)] = first_kind(some, wanted, "alt-text junk: ")
        return decision(reasons)


def kinds() -> list[Kind]:
    """The kinds of junk in `curate/alt_text.yaml`, in order."""
    return read_kinds(LIST)


USE = AltText
