"""What the thirteen published benchmarks have in common: data in the official layout, and five ways to read answers.

In: a folder with the official files, a profile. Out: questions in the order of the files, answers read by one
profile's rules only, a result with intervals, and the very numbers that the benchmark's script prints.

A benchmark adds `load` (files -> questions), `read` (text -> value, by profile), `credit` (value -> 0 to 1) and
`numbers` (all that was read -> the script's table). Everything else has a default here.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, Literal, get_args

import numpy as np

from bunny.core.errors import UserError
from bunny.core.log import log
from bunny.core.recipe import Section
from bunny.core.types import Answer, BoolArray, EvalResult, ImageRef, Parsed, Question
from bunny.evaluate.answers import Answers, Given
from bunny.evaluate.parse import choice, normalise
from bunny.evaluate.scoring import mean_score
from bunny.evaluate.stats import Clusters, ratio

ROOT = "BUNNY_EVAL_ROOT"
"""Names the folder that holds one folder of official files for each benchmark."""

WORD = "\nAnswer the question using a single word or phrase."
LETTER = "\nAnswer with the option's letter from the given choices directly."
"""What the original appends to questions."""

Profile = Literal["bunny", "official", "strict", "lmms_eval", "vlmevalkit"]
PROFILES: tuple[Profile, ...] = get_args(Profile)
"""The original Bunny's scripts bit by bit; the benchmark's own script; only what was asked for; two public kits."""


@dataclass(frozen=True)
class DataFile:
    """A file or folder that a benchmark needs. rows: how many lines or entries the whole one has. sha256: of the whole
    one, where one version is official. pictures: needed to ask a model, not to score answers."""

    path: str
    link: str
    rows: int | None = None
    sha256: str = ""
    pictures: bool = False


@dataclass(frozen=True)
class Read:
    """Every answer of a set, as it was read. given, parsed: aligned with questions; None where no answer came.

    order: the rows that have an answer, in the order of the answers file.
    """

    questions: Sequence[Question]
    given: Sequence[Given | None]
    parsed: Sequence[Parsed]
    order: Sequence[int]


class OfficialBenchmark(Section):
    """A published benchmark on its official files."""

    name: str
    data: Path | None = None  # folder with the official files; default: $BUNNY_EVAL_ROOT/NAME
    profile: Profile = "bunny"  # how answers are read: bunny | official | strict | lmms_eval | vlmevalkit

    FILES: ClassVar[tuple[DataFile, ...]] = ()
    RULES: ClassVar[Mapping[str, str]] = {}  # profile -> how it reads an answer, in words
    full: ClassVar[float] = 100.0  # the headline of perfect answers
    headline_part: ClassVar[str] = ""  # the part whose score is the headline; none: all questions
    max_new_tokens: ClassVar[int] = 128  # of an answer, as the original asks for it

    def load(self) -> list[Question]:
        """The questions in the order of the files."""
        raise UserError(f"{self.name}: has no `load`", fix="see evaluate/benchmarks/pope.py for an example")

    def read(self, question: Question, text: str) -> str:
        """What the profile reads in an answer; empty if it finds nothing."""
        return text.strip()

    def as_asked(self, question: Question, text: str) -> bool:
        """Whether the answer has the form that the question asked for: of a choice, the letter."""
        options = question.meta.get("options")
        return not options or choice(text, "".join(options)).status == "ok"

    def credit(self, question: Question, parsed: Parsed) -> float:
        """What the answer is worth, 0 to 1."""
        return float(parsed.value in question.gold)

    def parts(self, question: Question) -> Iterable[str]:
        """The sub-scores that the question counts for."""
        return ()

    def numbers(self, read: Read) -> dict[str, Any]:
        """`headline` and `numbers` as the benchmark's script prints them, and whatever else is worth comparing."""
        value = self.score(read.questions, read.parsed).headline.score
        return {"headline": {self.name: value}, "numbers": {"accuracy": value}}

    def key(self, given: Given) -> str:
        """The id of the question that a row of an answers file belongs to (or an alias of it)."""
        return given.id

    def aliases(self, questions: Sequence[Question]) -> Mapping[str, str]:
        """Other names of questions -> their ids."""
        return {}

    def complete(self, answers: Answers) -> tuple[Sequence[Question], Answers]:
        """The questions, with what the answers file itself says about them; and the answers, ids mended if need be."""
        return self.questions(), answers

    def questions(self) -> Sequence[Question]:
        """The questions, picture by picture, so that a model that keeps a picture's prefix reads each picture once.

        Raises UserError for files that are not in their official form.
        """
        try:
            return together(self.load())
        except (KeyError, IndexError, TypeError, AttributeError, ValueError) as error:
            raise UserError(
                f"{self.name}: {self.folder()}: a question file is not in its official form ({error!r})",
                fix=f"`bunny eval doctor -t {self.name}` tells which one, and where to get it",
            ) from error

    def parse(self, question: Question, answer: Answer) -> Parsed:
        """The value that the profile reads, and whether it had to look for it."""
        value = self.read(question, answer.text)
        if not normalise(answer.text):
            return Parsed(value, "empty")
        if not value:
            return Parsed("", "malformed")
        return Parsed(value, "ok" if self.as_asked(question, answer.text) else "fallback")

    def score(self, questions: Sequence[Question], parsed: Sequence[Parsed]) -> EvalResult:
        """The mean credit in per cent, and that of each part."""
        if not any(question.gold for question in questions):
            log.warning("%s: this split has no gold answers; write a submission instead of a score", self.name)
        points = [self.credit(question, item) for question, item in zip(questions, parsed, strict=True)]
        rows: dict[str, list[int]] = {}
        for row, question in enumerate(questions):
            for part in self.parts(question):
                rows.setdefault(part, []).append(row)
        masks = {part: np.isin(np.arange(len(questions)), members) for part, members in rows.items()}
        result = mean_score(self.name, questions, parsed, points, masks)
        return headlined(result, questions, masks[self.headline_part]) if self.headline_part in masks else result

    def submission(self, read: Read, path: Path) -> None:
        """Write the file that the benchmark's server takes."""
        raise UserError(f"{self.name}: there is no server to submit to", fix="score the answers here")

    def prepare(self) -> None:
        """See that every picture is there before a model is asked. Raises UserError with the first missing one."""
        pictures = dict.fromkeys(image.path for question in self.questions() for image in question.images)
        missing = [path for path in pictures if not Path(path).exists()]
        if missing:
            links = ", ".join(known.link for known in self.FILES if known.pictures)
            raise UserError(
                f"{self.name}: {len(missing)} of {len(pictures)} pictures are missing, first {missing[0]}",
                fix=f"get them from {links}" if links else "see `bunny eval doctor`",
            )

    def folder(self) -> Path:
        """Where the official files are. Raises UserError if nobody has said."""
        if self.data is not None:
            return self.data
        root = os.environ.get(ROOT)
        if not root:
            raise UserError(
                f"{self.name}: where are its files?", fix=f"set {ROOT} to the folder that has `{self.name}/`, or --data"
            )
        return Path(root) / self.name

    def file(self, *names: str) -> Path:
        """The first of the named files that is there. Raises UserError with where to get it."""
        folder = self.folder()
        for name in names:
            found = sorted(folder.glob(name)) if "*" in name else [folder / name]
            if found and found[0].exists():
                return found[0]
        link = next((known.link for known in self.FILES if known.path == names[0]), "")
        raise UserError(
            f"{self.name}: {folder}: no {' or '.join(names)}",
            fix=f"get it from {link}" if link else "see `bunny eval doctor`",
        )

    def has(self, name: str) -> bool:
        """Whether the named file is there."""
        return (self.data is not None or bool(os.environ.get(ROOT))) and (self.folder() / name).exists()


def ask(id: object, prompt: str, image: Path | None, gold: Iterable[object], group: str = "", **meta: Any) -> Question:
    """A question about at most one picture; its group is the picture, if not given."""
    images = () if image is None else (ImageRef(str(image)),)
    name = group or (str(image) if image else str(id))
    return Question(str(id), prompt, images, tuple(map(str, gold)), name, MappingProxyType(meta))


def headlined(result: EvalResult, questions: Sequence[Question], rows: BoolArray) -> EvalResult:
    """The result whose headline is the mean over the rows alone; that over all is the score `all`."""
    assert result.points is not None
    columns = np.stack([result.points * rows, rows], axis=1)  # (N, 2)
    clusters = Clusters([question.group for question in questions])
    draws = clusters.draws(columns, lambda sums: ratio(sums[..., 0], sums[..., 1]))
    headline = clusters.rate(result.points * rows, rows)
    return replace(result, headline=headline, scores={**result.scores, "all": result.headline}, draws=draws)


def together(questions: Sequence[Question]) -> list[Question]:
    """The questions about one picture one after the other, pictures in the order of their first question."""
    first: dict[tuple[ImageRef, ...], int] = {}
    for question in questions:
        first.setdefault(question.images, len(first))
    return sorted(questions, key=lambda question: first[question.images])


def percent(points: Sequence[float], digits: int | None = None) -> float:
    """100 × the mean, 0 for none, rounded to as many digits as the script prints."""
    value = 100 * sum(points) / len(points) if points else 0.0
    return value if digits is None else round(value, digits)
