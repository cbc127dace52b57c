"""The ids of the samples that stay, one a line.

In: samples. Out: `ids.txt`, in the order of the samples.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from bunny.core.protocols import Facts
from bunny.core.publishing import publish
from bunny.core.recipe import Section
from bunny.core.types import Rejected, Sample


class Ids(Section):
    """`{use: ids}`"""

    file: str = "ids.txt"

    def write(self, samples: Iterator[Sample], folder: Path, facts: Facts | None = None) -> list[Rejected]:
        """Write the file; the samples whose id would not fit on a line."""
        rejected: list[Rejected] = []
        with publish(folder / self.file) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as file:
            for sample in samples:
                if len(f"{sample.id}.".splitlines()) > 1:
                    rejected.append(Rejected(sample.id, sample.source, "line_break", "the id has several lines"))
                else:
                    file.write(sample.id + "\n")
        return rejected


USE = Ids
