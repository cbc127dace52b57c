"""Alt-text junk: file names, camera numbers, web addresses, stock-photo boilerplate where a caption should be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from pydantic import model_validator

from bunny.core.errors import UserError, nearest
from bunny.core.types import Decision, Pool
from bunny.curate.step import OrderedStep, column, decision
from bunny.curate.texts import arrow, blocks

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
        import pyarrow.compute as pc

        wanted = [kind for kind in kinds() if kind.name not in self.leave_out]
        wanted = [kind for kind in wanted if kind.name in self.only] if self.only else wanted
        reasons = np.full(len(pool), "", dtype=object)
        for start, some in blocks(column(pool, self.text, "alt_text")):
            texts = arrow(some)
            block = reasons[start : start + len(some)]  # a view
            for kind in wanted:
                found = pc.match_substring_regex(texts, kind.pattern, ignore_case=True).to_numpy(zero_copy_only=False)
                block[found & (block == "")] = f"alt-text junk: {kind.name}"
        return decision(reasons)


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of junk. pattern: RE2, case ignored. junk, fine: texts it is for, and texts it must leave alone."""

    name: str
    pattern: str
    junk: Sequence[str]
    fine: Sequence[str]


def kinds() -> list[Kind]:
    """The list in `curate/alt_text.yaml`, in order."""
    entries: list[dict[str, Any]] = yaml.safe_load(LIST.read_text(encoding="utf-8"))
    try:
        return [Kind(**entry) for entry in entries]
    except TypeError as error:
        raise UserError(f"{LIST.name}: {error}", fix="give every kind a name, a pattern, junk and fine") from None


USE = AltText
