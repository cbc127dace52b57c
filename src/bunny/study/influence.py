"""Data influence at a glance: what a selection gains and loses, and what it has learnt from that is like the flips.

In: results of an arm and of its reference, vectors of the held-out pictures and of the pool. Out: gains by word (or
category), the questions that flipped in most trainings, and the training pictures of both nearest to each. Nearness is
a hint where to look, not a proof of cause.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from bunny.core.log import log
from bunny.core.publishing import publish
from bunny.core.store import fingerprint
from bunny.core.types import FloatArray, ImageRef, IntArray, Question
from bunny.study.findings import Result, paired_points
from bunny.study.measures import Measure, Row
from bunny.study.shared import Shared, claimed

FEWEST = 4  # questions of a word, to be listed
FLIPS = 4  # gained, and as many lost
NEAREST = 3
ALIKE = 0.985  # cosine at which two pictures are the same drawing under the demo's embedder
BATCH = 32


@dataclass(frozen=True, slots=True)
class Flip:
    """A question, its points' difference (mean over seeds), and the nearest training pictures: (cosine, sample id)."""

    question: str
    prompt: str
    gold: str
    group: str
    difference: float
    mine: list[tuple[float, str]]
    theirs: list[tuple[float, str]]


class Nearness:
    """Cosines between held-out pictures and the pool's, by the study's embedder.

    questions: of all tasks, those with one picture count.
    """

    def __init__(self, shared: Shared, questions: Sequence[Question]) -> None:
        self.shared = shared
        self.pictures = {one.group or one.id: one.images[0] for one in questions if len(one.images) == 1}

    @cached_property
    def ids(self) -> list[str]:
        """Of the pool's rows."""
        return [str(id) for id in self._pool["id"].arrow().to_pylist()]

    def nearest(self, group: str, kept: IntArray) -> list[tuple[float, str]]:
        """(cosine, id) of the rows `kept` of the pool nearest to a held-out picture, and no two the same drawing."""
        if group not in self._places or not len(kept) or not len(self._held_out):
            return []
        likeness = self._matrix[kept] @ self._held_out[self._places[group]]
        found: list[int] = []
        for at in np.argsort(-likeness, kind="stable").tolist():
            row = int(kept[at])
            if all(float(self._matrix[row] @ self._matrix[other]) < ALIKE for other in found):
                found.append(row)
            if len(found) == NEAREST:
                break
        return [
            (round(float(self._matrix[row] @ self._held_out[self._places[group]]), 3), self.ids[row]) for row in found
        ]

    def leaks(self) -> list[tuple[str, str, float]]:
        """(held-out picture, row of the pool, cosine) of pairs that are as good as the same drawing."""
        if not len(self._held_out):
            return []
        likeness = self._held_out @ self._matrix.T  # (Q, N)
        best = likeness.argmax(axis=1)
        names = list(self._places)
        return [
            (names[q], self.ids[row], float(likeness[q, row]))
            for q, row in enumerate(best.tolist())
            if likeness[q, row] >= ALIKE
        ]

    @cached_property
    def _pool(self) -> Any:
        return self.shared.pool.pool()

    @cached_property
    def _matrix(self) -> FloatArray:
        """(N, V) float32 unit vectors of the pool."""
        return np.asarray(self._pool["visual"].read(), dtype=np.float32)

    @cached_property
    def _places(self) -> dict[str, int]:
        return {group: place for place, group in enumerate(self.pictures)}

    @cached_property
    def _held_out(self) -> FloatArray:
        """(Q, V) float32 unit vectors of the held-out pictures; made once."""
        section = self.shared.base.curate
        assert section
        mark = fingerprint("held-out", [str(section.embedder), *map(str, self.pictures.values())], {})
        path = self.shared.folder / f"questions-{mark}.npy"
        if not section.embedder:
            return np.zeros((0, self._matrix.shape[1]), np.float32)
        with claimed(path.with_suffix(".lock")):
            if not path.exists():
                vectors = _embedded(section.embedder, list(self.pictures.values()))
                with publish(path) as temporary:
                    np.save(temporary, vectors)
        return np.asarray(np.load(path), dtype=np.float32)


def gains(arm: Sequence[Result], reference: Sequence[Result], task: str, measure: Measure) -> list[dict[str, Any]]:
    """By word (or category): mean difference in points, and how many questions; largest gain first."""
    paired = paired_points(arm, reference, task, measure)
    if paired is None:
        return []
    rows, values = arm[0].rows[task], paired[1]
    of = [_groups_of(row) for row in rows]
    found = []
    for name in sorted({name for names in of for name in names}):
        mine = np.array([name in names for names in of])
        if mine.sum() >= FEWEST:
            change = 100 * float(values[:, mine].mean())
            found.append({"word": name, "questions": int(mine.sum()), "difference": change})
    return sorted(found, key=lambda one: -one["difference"])


def flips(
    arm: Sequence[Result], reference: Sequence[Result], task: str, near: Nearness, kept: Mapping[str, IntArray]
) -> list[Flip]:
    """The questions that the arm won or lost in most trainings, by accuracy. kept: rows of the pool that `mine` and
    `theirs` have learnt from."""
    paired = paired_points(arm, reference, task, "accuracy")
    if paired is None:
        return []
    rows, change = arm[0].rows[task], paired[1].mean(axis=0)
    order = np.argsort(change, kind="stable")
    chosen = [*order[::-1][:FLIPS].tolist(), *order[:FLIPS].tolist()]
    return [
        Flip(
            rows[at]["id"],
            rows[at]["prompt"],
            rows[at]["gold"][0],
            rows[at]["group"],
            100 * float(change[at]),
            near.nearest(rows[at]["group"], kept["mine"]),
            near.nearest(rows[at]["group"], kept["theirs"]),
        )
        for at in chosen
        if change[at]
    ]


def _groups_of(row: Row) -> list[str]:
    """The words that a question is about, else its category."""
    if row["word"]:
        return [str(row["word"])]
    return [str(word) for word in row["gold"]] if row["absent"] else [str(row["category"] or "(all)")]


def _embedded(block: Mapping[str, Any], pictures: Sequence[ImageRef]) -> FloatArray:
    from bunny.core.recipe import make
    from bunny.data.images import open_image

    log.info("embed %d held-out pictures", len(pictures))
    embedder = make(dict(block), "bunny.infer.embedders", "curate.embedder")
    parts = []
    for start in range(0, len(pictures), BATCH):
        some = [np.asarray(open_image(ref).convert("RGB")) for ref in pictures[start : start + BATCH]]
        found = embedder.embed(some, [""] * len(some))
        parts.append(found.image if found.visual is None else found.visual)
    return np.concatenate(parts).astype(np.float32)
