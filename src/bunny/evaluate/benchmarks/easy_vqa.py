"""easy-vqa's official test split: one coloured shape on a 64×64 picture, 13 possible answers (MIT, PyPI `easy-vqa`).

In: the package's `data` folder (test/questions.json, test/images/N.png). Out: questions by whole pictures, exact-match
accuracy over all, open and yes/no questions. The official score is accuracy over all 9,673 questions of the split.
"""

from __future__ import annotations

import importlib.util
import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from types import MappingProxyType

from PIL import Image
from pydantic import Field

from bunny.core.errors import UserError
from bunny.core.recipe import Section
from bunny.core.seeds import stream
from bunny.core.types import Answer, EvalResult, ImageRef, Parsed, Question
from bunny.evaluate.parse import normalise, words
from bunny.evaluate.scoring import mean_score


class EasyVqa(Section):
    """A fixed sample of the test split."""

    name: str = "easy_vqa"
    count: int | None = Field(None, gt=0, description="questions in all; default: the whole split")
    per_picture: int | None = Field(None, gt=0, description="at most so many questions about one picture")
    suffix: str = "\nAnswer the question using a single word or phrase."  # what the original appends for short answers
    data: Path | None = None  # the package's `data` folder; default: the installed package's
    seed: int = 0  # which pictures and questions are drawn

    def questions(self) -> Sequence[Question]:
        """The sample, picture by picture, so that a model that keeps a picture's prefix reads each picture once."""
        return self._read("test", self.count)

    def training(self) -> Sequence[Question]:
        """All questions of the training split: where the majority baseline takes its answer from."""
        return self._read("train", None)

    def parse(self, question: Question, answer: Answer) -> Parsed:
        """The normalised answer; `malformed` where it is none of the set's 13 answers."""
        read = words(answer.text)
        known = read.status == "empty" or read.value in question.meta["answers"]
        return read if known else Parsed(read.value, "malformed")

    def score(self, questions: Sequence[Question], parsed: Sequence[Parsed]) -> EvalResult:
        """Accuracy in per cent; an answer counts if it equals the gold answer after normalisation."""
        right = [item.value == normalise(question.gold[0]) for question, item in zip(questions, parsed, strict=True)]
        kinds = [str(question.meta["kind"]) for question in questions]
        parts = {kind: [each == kind for each in kinds] for kind in ("open", "yes_no")}
        return mean_score(self.name, questions, parsed, right, parts)

    @classmethod
    def example(cls, folder: Path) -> EasyVqa:
        """A made-up set of four pictures in the package's layout, for the contract suite."""
        rows = [["what is the shape?", "circle"], ["is there a circle?", "yes"], ["is there a red shape?", "no"]]
        for split in ("test", "train"):
            (folder / split / "images").mkdir(parents=True)
            (folder / split / "questions.json").write_text(json.dumps([[*row, n] for n in range(4) for row in rows]))
            for n in range(4):
                Image.new("RGB", (8, 8), (60 * n, 0, 0)).save(folder / split / "images" / f"{n}.png")
        (folder / "answers.txt").write_text("circle\nyes\nno\n")
        return cls(data=folder)

    def _read(self, split: str, count: int | None) -> list[Question]:
        folder = self.data or _installed()
        try:
            rows = json.loads((folder / split / "questions.json").read_text(encoding="utf-8"))
            answers = frozenset((folder / "answers.txt").read_text(encoding="utf-8").split())
        except (OSError, json.JSONDecodeError) as error:
            raise UserError(
                f"easy_vqa: {folder}: {error}", fix="install the package again: pip install easy-vqa"
            ) from None
        pictures = defaultdict(list)
        for row, (text, gold, picture) in enumerate(rows):
            meta = {"kind": "yes_no" if gold in ("yes", "no") else "open", "answers": answers}
            image = ImageRef(str(folder / split / "images" / f"{picture}.png"))
            name = f"{split}-{picture}"
            pictures[picture].append(
                Question(f"{split}-{row}", text + self.suffix, (image,), (gold,), name, MappingProxyType(meta))
            )
        rng = stream("evaluate.easy_vqa", self.seed)
        chosen: list[Question] = []
        for picture in rng.permutation(sorted(pictures)).tolist():
            asked = pictures[picture]
            if count is not None and len(chosen) >= count:
                break
            rows_kept = sorted(rng.permutation(len(asked))[: self.per_picture].tolist())
            chosen += [asked[row] for row in rows_kept]
        return chosen[:count]


def _installed() -> Path:
    found = importlib.util.find_spec("easy_vqa")
    if found is None or found.origin is None:
        raise UserError("easy_vqa: the Python package is not installed", fix="pip install easy-vqa")
    return Path(found.origin).parent / "data"


USE = EasyVqa
