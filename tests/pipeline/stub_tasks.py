"""A benchmark for tests of whole commands: `-t tests.pipeline.stub_tasks:Squares`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from bunny.core.recipe import Section
from bunny.core.types import Answer, EvalResult, ImageRef, Parsed, Question
from bunny.evaluate.parse import words
from bunny.evaluate.scoring import mean_score

COLOURS = ("red", "green", "blue")
PICTURES = 5


class Squares(Section):
    """Three questions about each of five one-coloured pictures, no two of a size, in the working directory."""

    name: str = "squares"
    folder: Path = Path()
    max_new_tokens: int = 5

    def prepare(self) -> None:
        for number in range(PICTURES):
            path = self.folder / f"square{number}.png"
            if not path.exists():
                Image.new("RGB", (32 + number, 32), COLOURS[number % 3]).save(path)

    def questions(self) -> Sequence[Question]:
        return [
            Question(
                f"{number}{asked}",
                f"is the square {asked}?",
                (ImageRef(str(self.folder / f"square{number}.png")),),
                ("yes" if COLOURS[number % 3] == asked else "no",),
                str(number),
            )
            for number in range(PICTURES)
            for asked in COLOURS
        ]

    def parse(self, question: Question, answer: Answer) -> Parsed:
        return words(answer.text)

    def score(self, questions: Sequence[Question], parsed: Sequence[Parsed]) -> EvalResult:
        right = [item.value == question.gold[0] for question, item in zip(questions, parsed, strict=True)]
        return mean_score(self.name, questions, parsed, right)
