"""Several sets become the rows of one training stage, in one fixed order.

In: named sets, weights and caps. Out: `Mixture`: the rows and how many came from where. With `by_picture` all rows
about one picture stand next to each other, whatever set they are from, so that training encodes the picture once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from bunny.core.errors import UserError
from bunny.core.protocols import Source
from bunny.core.recipe import Block, make
from bunny.core.seeds import stream
from bunny.core.types import ImageRef, Rejected, Sample
from bunny.data.makers import Maker
from bunny.data.reading import Reading, split, usable

Group = list[Sample]
"""Rows about the same pictures."""


@dataclass(frozen=True)
class Mixture:
    """Rows in training order. available, used: rows per set before and after weights and caps."""

    samples: list[Sample]
    available: Mapping[str, int]
    used: Mapping[str, int]

    @property
    def pictures(self) -> int:
        """Different pictures among the rows."""
        return len({ref for sample in self.samples for ref in sample.images})


def make_mixture(
    blocks: Sequence[Block], samples: Sequence[Sample], *, seed: int, folder: Path, by_picture: bool = False
) -> tuple[Mixture, list[Rejected]]:
    """The rows of a stage: its `data` blocks made, weighted and mixed; and the stored rows that cannot be used.

    blocks: each names a file of data/makers, or outside code with `make`. samples: the curated pairs. folder: where
    relative paths start. Sets are named by their `use`, a second one of a name `use~2`. No picture is opened: that is
    done once for all rows, when they are indexed (`bunny.train.index`). Raises UserError.
    """
    sets: dict[str, Sequence[Sample]] = {}
    weights: dict[str, float] = {}
    caps: dict[str, int] = {}
    rejected: list[Rejected] = []
    for number, block in enumerate(blocks):
        maker = make(block, "bunny.data.makers", f"data.{number}", folder=folder)
        if not isinstance(maker, Maker):
            fix = "derive it from bunny.data.makers.Maker"
            raise UserError(f"data.{number}: `{block['use']}` makes no conversations", fix=fix)
        name = str(block["use"])
        name = name if name not in sets else f"{name}~{number + 1}"
        reading = _rows_of(maker, name, samples, seed)
        sets[name] = reading.samples
        rejected += reading.rejected
        weights[name] = maker.weight
        if maker.cap is not None:
            caps[name] = maker.cap
    return mix(sets, seed=seed, weights=weights, caps=caps, by_picture=by_picture), rejected


def _rows_of(maker: Maker, name: str, samples: Sequence[Sample], seed: int) -> Reading:
    if isinstance(maker, Source):
        return usable(split(maker.read()), name)
    made = list(maker.make(samples, stream(f"data.{name}", seed)))
    if not made:
        raise UserError(f"{name}: made nothing of {len(samples)} samples", fix="check its settings")
    return Reading(made, [])


def mix(
    sets: Mapping[str, Sequence[Sample]],
    *,
    seed: int,
    weights: Mapping[str, float] | None = None,
    caps: Mapping[str, int] | None = None,
    by_picture: bool = False,
) -> Mixture:
    """All sets as one list in a random order fixed by `seed`.

    weights: how often a row is seen in one pass: 0.5 draws half the rows, 2 takes each twice (the second time as
    `{id}@2`); default 1. caps: at most so many rows, after the weight. With `by_picture` whole pictures are drawn and
    shuffled, and the rows of one stay adjacent. Raises UserError for unknown names and weights that are not positive.
    """
    weights, caps = weights or {}, caps or {}
    if strangers := sorted({*weights, *caps} - set(sets)):
        raise UserError(f"weight or cap for {', '.join(strangers)}: no such set", fix=f"known: {', '.join(sets)}")
    drawn: dict[str, list[Sample]] = {}
    for name, rows in sets.items():
        weight = weights.get(name, 1.0)
        if not weight > 0 or caps.get(name, 1) <= 0:
            raise UserError(f"{name}: weight and cap must be above 0", fix="leave the set out instead")
        rng = stream(f"data.mix.{name}", seed)
        drawn[name] = _draw(rows, weight, caps.get(name), rng, by_picture)
    everything = _groups((row for rows in drawn.values() for row in rows), by_picture)
    order = stream("data.mix", seed).permutation(len(everything))
    return Mixture(
        [row for group in order for row in everything[group]],
        {name: len(rows) for name, rows in sets.items()},
        {name: len(rows) for name, rows in drawn.items()},
    )


def _draw(
    rows: Sequence[Sample], weight: float, cap: int | None, rng: np.random.Generator, by_picture: bool
) -> list[Sample]:
    """Whole copies of the set, then a random part of it: `weight` times its rows, at most `cap`."""
    wanted = round(weight * len(rows))
    wanted = wanted if cap is None else min(wanted, cap)
    out: list[Sample] = []
    copy = 1
    while len(out) < wanted:
        groups = _groups(rows, by_picture)
        shuffled = (row for group in rng.permutation(len(groups)) for row in groups[group])
        part = [row for row, _ in zip(shuffled, range(wanted - len(out)), strict=False)]
        out += part if copy == 1 else [replace(row, id=f"{row.id}@{copy}") for row in part]
        copy += 1
    return out


def _groups(rows: Iterable[Sample], by_picture: bool) -> list[Group]:
    """Rows about the same pictures together, in the order of first rows; else (and without pictures) one by one."""
    groups: dict[tuple[ImageRef, ...] | int, Group] = {}
    for number, row in enumerate(rows):
        key = row.images if by_picture and row.images else number
        groups.setdefault(key, []).append(row)
    return list(groups.values())
