"""Samples become token rows; every sample that cannot teach is listed with its reason.

In: a sample, a `Writer`, the longest row allowed. Out: a `ShortRow`, or why there is none. A longer row is cut, as in
the original, and counted; one whose pictures or labels lie behind the cut is left out. A set that teaches nothing is an
error.
"""

from __future__ import annotations

import copy
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from bunny.core.errors import UserError
from bunny.core.log import log
from bunny.core.store import write_atomic
from bunny.core.types import IGNORE, BoolArray, IntArray, Rejected, Sample
from bunny.text.template import Writer

UNUSABLE_SHARE = 0.5
"""More than this share of unusable samples stops the run: the data or the template is wrong, not a few rows."""


@dataclass(frozen=True, slots=True)
class ShortRow:
    """A `TokenRow` with one token for each picture in place of its run: what is stored.

    ids: (t,) int64. learnt: (t,) bool, where the label is the id. tokens: length of the whole row, runs included.
    """

    ids: IntArray
    learnt: BoolArray
    tokens: int
    cut: bool

    @property
    def learns(self) -> int:
        """Number of label tokens that can be predicted (the first token has no predecessor)."""
        return int(self.learnt[1:].sum())


class RowMaker:
    """Makes short rows of at most `max_length` tokens; equal to `writer.row(sample).first(max_length)`."""

    def __init__(self, writer: Writer, max_length: int) -> None:
        self.run, self.max_length = writer.image_tokens, max_length
        self.writer = copy.copy(writer)
        self.writer.image_tokens = 1  # the run of a picture's tokens is put in when the row is read

    def row(self, sample: Sample) -> ShortRow | Rejected:
        """The sample's row, or the reason why it cannot be learnt from."""
        answers = [turn for turn in sample.turns if turn.role == "assistant"]
        if not answers:
            return Rejected(sample.id, sample.source, "no assistant turn")
        if any(not turn.text.strip() for turn in answers):
            return Rejected(sample.id, sample.source, "an empty answer")
        try:
            row = self.writer.row(sample)
        except UserError as error:
            return Rejected(sample.id, sample.source, "picture marks do not fit the pictures", str(error))
        more = (self.run - 1) * len(sample.images)  # tokens that the runs add; all stand before the cut, or it is out
        places = np.flatnonzero((row.ids == self.writer.image_token_id) & bool(sample.images))
        if len(places) != len(sample.images):
            reason = "picture marks do not fit the pictures"
            return Rejected(sample.id, sample.source, reason, "a word has the pictures' token")
        whole = len(row.ids) + more
        cut = whole > self.max_length
        end = self.max_length - more if cut else len(row.ids)
        short = ShortRow(row.ids[: max(0, end)], row.labels[: max(0, end)] != IGNORE, min(whole, self.max_length), cut)
        if (len(places) and places[-1] >= end) or (cut and short.learns == 0):
            detail = f"{whole} > {self.max_length} tokens"
            return Rejected(sample.id, sample.source, "longer than max_length", detail)
        if short.learns == 0:
            return Rejected(sample.id, sample.source, "no label to learn")
        return short


def report(rows: int, cut: int, left_out: Sequence[Rejected], max_length: int) -> None:
    """Say how many of the samples are cut or left out. Raises UserError if no row is usable or more than half are not.

    rows: that are usable. left_out: the other samples.
    """
    samples = rows + len(left_out)
    if cut:
        log.warning("%d of %d samples are cut at max_length=%d tokens", cut, samples, max_length)
    counts = Counter(item.reason for item in left_out)
    for reason, count in counts.most_common():
        log.warning("%d of %d samples left out: %s", count, samples, reason)
    if len(left_out) > UNUSABLE_SHARE * samples or not rows:
        worst = counts.most_common(1)[0] if counts else ("no samples", 0)
        raise UserError(
            f"only {rows} of {samples} samples can be learnt from; {worst[1]} x {worst[0]}",
            fix="check the template, `max_length` and the data",
        )


def write_left_out(path: Path, left_out: Iterable[Rejected]) -> None:
    """One JSON object per sample that was not used."""
    write_atomic(path, "".join(json.dumps(asdict(item)) + "\n" for item in left_out))


def read_left_out(path: Path) -> list[Rejected]:
    """What `write_left_out` wrote."""
    return [Rejected(**json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]
