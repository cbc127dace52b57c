"""Samples become token rows; every sample that cannot teach is listed with its reason.

In: samples, a `Writer`, the longest row allowed. Out: rows, and what was left out. A longer row is cut, as in the
original, and counted; one whose pictures or labels lie behind the cut is left out. A set that teaches nothing is an
error.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

from bunny.core.errors import UserError
from bunny.core.log import log, track
from bunny.core.types import Rejected, Sample, TokenRow
from bunny.text.template import Writer

UNUSABLE_SHARE = 0.5
"""More than this share of unusable samples stops the run: the data or the template is wrong, not a few rows."""


def tokenise(samples: list[Sample], writer: Writer, max_length: int) -> tuple[list[TokenRow], list[Rejected]]:
    """(rows, left out). Raises UserError if no row is usable or more than half are not."""
    rows: list[TokenRow] = []
    left_out: list[Rejected] = []
    for sample in track(samples, "tokenise", len(samples)):
        outcome = _row(sample, writer, max_length)
        (rows if isinstance(outcome, TokenRow) else left_out).append(outcome)  # type: ignore[arg-type]
    if cut := sum(row.cut for row in rows):
        log.warning("%d of %d samples are cut at max_length=%d tokens", cut, len(samples), max_length)
    counts = Counter(item.reason for item in left_out)
    for reason, count in counts.most_common():
        log.warning("%d of %d samples left out: %s", count, len(samples), reason)
    if len(left_out) > UNUSABLE_SHARE * len(samples) or not rows:
        worst = counts.most_common(1)[0] if counts else ("no samples", 0)
        raise UserError(
            f"only {len(rows)} of {len(samples)} samples can be learnt from; {worst[1]} x {worst[0]}",
            fix="check the template, `max_length` and the data",
        )
    return rows, left_out


def _row(sample: Sample, writer: Writer, max_length: int) -> TokenRow | Rejected:
    answers = [turn for turn in sample.turns if turn.role == "assistant"]
    if not answers:
        return Rejected(sample.id, sample.source, "no assistant turn")
    if any(not turn.text.strip() for turn in answers):
        return Rejected(sample.id, sample.source, "an empty answer")
    try:
        row = writer.row(sample)
    except UserError as error:
        return Rejected(sample.id, sample.source, "picture marks do not fit the pictures", str(error))
    short = row.first(max_length)
    if (row.ids[max_length:] == writer.image_token_id).any() or (short.cut and short.learns == 0):
        return Rejected(sample.id, sample.source, "longer than max_length", f"{len(row.ids)} > {max_length} tokens")
    if short.learns == 0:
        return Rejected(sample.id, sample.source, "no label to learn")
    return short


def write_left_out(path: Path, left_out: Iterable[Rejected]) -> None:
    """One JSON object per sample that was not used."""
    path.write_text("".join(json.dumps(asdict(item)) + "\n" for item in left_out), encoding="utf-8")
