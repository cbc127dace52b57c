"""A source read to the end: what can be used, and every row that cannot, counted and listed.

In: a `{use: table, …}` block. Out: `Reading`. Decodes no picture.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from bunny.core.errors import UserError
from bunny.core.log import log
from bunny.core.recipe import Block, make
from bunny.core.store import write_atomic
from bunny.core.types import Rejected, Sample
from bunny.data.guessing import guess_source as guess_source


@dataclass(frozen=True)
class Reading:
    """Samples in the source's order, and the rows that gave none."""

    samples: list[Sample]
    rejected: list[Rejected]

    @property
    def reasons(self) -> Mapping[str, int]:
        """How many rows were rejected for each reason, most frequent first."""
        return dict(Counter(row.reason for row in self.rejected).most_common())

    def write_rejected(self, path: Path) -> None:
        """List the rejected rows, one JSON object a line."""
        write_atomic(path, "".join(json.dumps(asdict(row)) + "\n" for row in self.rejected))


def read_source(block: Block, folder: Path, where: str = "recipe") -> Reading:
    """All rows of the source a block stands for; relative paths are seen from `folder`.

    Raises UserError if the block is wrong, nothing lies at its path, or no row is usable.
    """
    return usable(split(make(block, "bunny.data.sources", where, folder=folder).read()), where)


def usable(reading: Reading, where: str) -> Reading:
    """The reading as it is, its rejections logged. Raises UserError if it holds no sample."""
    if reading.rejected:
        log.warning("%s: %d rows cannot be used: %s", where, len(reading.rejected), dict(reading.reasons))
    if not reading.samples:
        first = reading.rejected[0] if reading.rejected else None
        detail = f"all rejected, first {first.where}: {first.reason} {first.detail}" if first else "it has no rows"
        raise UserError(f"{where}: no usable sample, {detail}", fix="check the source's settings")
    return reading


def split(rows: Iterable[Sample | Rejected]) -> Reading:
    """What a source yields, in two lists."""
    reading = Reading([], [])
    for row in rows:
        if isinstance(row, Sample):
            reading.samples.append(row)
        else:
            reading.rejected.append(row)
    return reading
