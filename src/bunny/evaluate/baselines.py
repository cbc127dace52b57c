"""What a score must beat: the most frequent answer, the same model without pictures, the same model with wrong ones.

In: an `Answerer` or a `Benchmark`. Out: another `Answerer`, asked and scored exactly like the model.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

from bunny.core.errors import UserError
from bunny.core.protocols import Answerer, Benchmark
from bunny.core.seeds import stream
from bunny.core.types import Answer, ImageRef, Question


@runtime_checkable
class HasTraining(Protocol):
    """A benchmark that comes with training questions."""

    def training(self) -> Sequence[Question]: ...


@dataclass(frozen=True)
class Majority:
    """Always the most frequent gold answer of the question's kind (`meta["kind"]`, if the benchmark names kinds).

    table: kind -> answer. source: where it was counted.
    """

    table: Mapping[str, str]
    source: str

    @property
    def name(self) -> str:
        said = ", ".join(f"{kind}: {answer}" if kind else answer for kind, answer in sorted(self.table.items()))
        return f"most frequent answer of the {self.source} questions ({said})"

    def answer(self, questions: Sequence[Question]) -> Iterator[Answer]:
        for question in questions:
            yield Answer(question.id, self.table.get(_kind(question), ""))


def majority(benchmark: Benchmark) -> Majority:
    """The majority baseline: counted on the training questions if the benchmark has any, else on the test questions.

    Ties go to the answer that comes first in the alphabet. On a test set this is an upper bound for any constant.
    """
    trained = isinstance(benchmark, HasTraining)
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for question in benchmark.training() if isinstance(benchmark, HasTraining) else benchmark.questions():
        counts[_kind(question)].update(question.gold)
    table = {kind: min(seen, key=lambda gold: (-seen[gold], gold)) for kind, seen in counts.items()}
    return Majority(table, "training" if trained else "test")


@dataclass(frozen=True)
class Blind:
    """The same answerer, asked without pictures: what the text alone gives away.

    A text that comes again is asked once (the answerer is taken to be deterministic), which saves most of the time.
    """

    answerer: Answerer

    @property
    def name(self) -> str:
        return f"{self.answerer.name}, without pictures"

    def answer(self, questions: Sequence[Question]) -> Iterator[Answer]:
        same: dict[str, list[str]] = defaultdict(list)
        first: dict[str, Question] = {}
        for question in questions:
            first.setdefault(question.prompt, replace(question, images=()))
            same[first[question.prompt].id].append(question.id)
        for answer in self.answerer.answer(list(first.values())):
            for id in same.get(answer.id, [answer.id]):
                yield replace(answer, id=id)


@dataclass(frozen=True)
class Shuffled:
    """The same answerer, shown another question's pictures: does it look at *this* picture?

    swaps: pictures -> the pictures shown instead, never the same. Made by `shuffled`.
    """

    answerer: Answerer
    swaps: Mapping[tuple[ImageRef, ...], tuple[ImageRef, ...]]

    @property
    def name(self) -> str:
        text = "\n".join(f"{list(map(str, old))} {list(map(str, new))}" for old, new in self.swaps.items())
        return f"{self.answerer.name}, with swapped pictures {hashlib.sha256(text.encode()).hexdigest()[:8]}"

    def answer(self, questions: Sequence[Question]) -> Iterator[Answer]:
        return self.answerer.answer([replace(question, images=self.swaps[question.images]) for question in questions])


def shuffled(answerer: Answerer, questions: Sequence[Question], seed: int = 0) -> Shuffled:
    """`answerer` with the pictures of all `questions` moved round one random circle. Raises UserError below two."""
    sets = list(dict.fromkeys(question.images for question in questions))
    if len(sets) < 2:
        raise UserError("pictures cannot be swapped: fewer than two", fix="ask about more pictures")
    order = stream("evaluate.shuffled", seed).permutation(len(sets)).tolist()
    circle = [sets[row] for row in order]
    return Shuffled(answerer, dict(zip(circle, circle[1:] + circle[:1], strict=True)))


def _kind(question: Question) -> str:
    return str(question.meta.get("kind", ""))
