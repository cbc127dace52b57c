"""Rows of a selection in, cards for the report out: caption, small picture as a data address, a note.

Samples are asked for by row, a few at a time; the pictures of a page are bounded in number and bytes, so a pool of ten
million rows costs no more than one of a thousand.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from bunny.core.errors import UserError
from bunny.core.seeds import stream
from bunny.core.types import IntArray, Sample
from bunny.curate.engine import Selection

SIDE = 96  # pixels of a picture in the report
MOST_BYTES = 5_000_000  # of all pictures together; later ones are left out, their captions stay
MOST_PICTURES = 450  # read for one page

Thumbnail = Callable[[Sample], Image.Image]
SamplesOf = Callable[[IntArray], Sequence[Sample]]


@dataclass(frozen=True, slots=True)
class Card:
    """A picture with its words. picture: a data address, empty where there was no room or nothing to read."""

    id: str
    caption: str
    picture: str
    note: str = ""
    stays: bool = True


class Wall:
    """Makes cards, and keeps count of their pictures. samples_of: rows of the pool -> their samples."""

    def __init__(self, selection: Selection, samples_of: SamplesOf, thumbnail: Thumbnail) -> None:
        self.samples_of, self.thumbnail = samples_of, thumbnail
        self.twins, self.cosines, self.kept = selection.twins(), selection.twin_cosines(), selection.kept()
        self.captions = selection.pool.columns.get("caption")
        self.rng = stream("curate.report", selection.seed)
        self.bytes = self.pictures = 0

    def drawn(self, rows: IntArray, most: int) -> list[Card]:
        """Cards of up to `most` of the rows, drawn at random, in order."""
        return self.cards(np.sort(self.rng.choice(rows, min(most, len(rows)), replace=False)))

    def cards(self, rows: Sequence[int] | IntArray, notes: Sequence[str] | None = None) -> list[Card]:
        """One card a row; without notes, a duplicate's cosine to its twin."""
        found = []
        rows = np.asarray(rows, dtype=np.int64)
        for place, (row, sample) in enumerate(zip(rows, self.samples_of(rows) if len(rows) else (), strict=True)):
            note = notes[place] if notes is not None else self._to_twin(int(row), sample)
            found.append(Card(sample.id, short(sample.text), self._picture(sample), note, bool(self.kept[row])))
        return found

    def _to_twin(self, row: int, sample: Sample) -> str:
        twin = int(self.twins[row])
        if twin < 0:
            return ""
        caption = str(self.captions[twin]) if self.captions is not None else ""
        return f"{self.cosines[row]:.3f}" + ("" if caption in ("", sample.text) else f" to “{short(caption)}”")

    def _picture(self, sample: Sample) -> str:
        if self.bytes > MOST_BYTES or self.pictures >= MOST_PICTURES or not sample.images:
            return ""
        self.pictures += 1
        try:
            image = self.thumbnail(sample).convert("RGB")
        except (UserError, OSError):
            return ""  # the page shows the caption with "no picture"
        image.thumbnail((SIDE, SIDE))
        data = io.BytesIO()
        image.save(data, "WEBP", quality=70, method=4)
        self.bytes += len(data.getvalue()) * 4 // 3
        return "data:image/webp;base64," + base64.b64encode(data.getvalue()).decode()


def short(text: str, most: int = 60) -> str:
    return text if len(text) <= most else text[: most - 1].rstrip() + "…"
