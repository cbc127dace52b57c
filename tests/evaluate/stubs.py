"""Small stand-ins for models and benchmarks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from bunny.core.types import Answer, EvalResult, ImageRef, Parsed, Question
from bunny.evaluate.parse import words
from bunny.evaluate.scoring import mean_score


class Stub:
    """Answers by a function of the question, and remembers what it was asked."""

    def __init__(self, say: Callable[[Question], str], name: str = "stub") -> None:
        self.say, self.name = say, name
        self.asked: list[Question] = []

    def answer(self, questions: Sequence[Question]) -> Iterator[Answer]:
        for question in questions:
            self.asked.append(question)
            yield Answer(question.id, self.say(question))


def gold(question: Question) -> str:
    return question.gold[0]


class Colours:
    """Four pictures, three questions each; the gold answer is in the prompt."""

    name = "colours"

    def __init__(self, rows: Sequence[Question] | None = None) -> None:
        self.rows = list(rows) if rows is not None else [ask(f"p{row // 3}", row) for row in range(12)]

    def questions(self) -> Sequence[Question]:
        return self.rows

    def parse(self, question: Question, answer: Answer) -> Parsed:
        return words(answer.text)

    def score(self, questions: Sequence[Question], parsed: Sequence[Parsed]) -> EvalResult:
        right = [item.value == question.gold[0] for question, item in zip(questions, parsed, strict=True)]
        return mean_score(self.name, questions, parsed, right)


def ask(picture: str, row: int, gold: str = "") -> Question:
    word = gold or ("red" if row % 2 else "blue")
    return Question(f"q{row}", f"Say {word}, take {row % 3}.", (ImageRef(f"{picture}.png"),), (word,), picture)
