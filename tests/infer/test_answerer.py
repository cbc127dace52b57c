"""Which questions are computed together, and pictures that are decoded ahead."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import pytest

from bunny.core.errors import UserError
from bunny.core.types import GenerationSettings, ImageRef, Question
from bunny.infer.answerer import ModelAnswerer
from bunny.infer.generate import Request
from bunny.infer.opening import opened


class Parrot:
    """In a generator's place: says the question again, and remembers what was asked together."""

    def __init__(self) -> None:
        self.batches: list[list[Request]] = []

    def answer(self, requests: Sequence[Request], settings: GenerationSettings) -> list[str]:
        self.batches.append(list(requests))
        return [request.turns[0].text for request in requests]


def about(counts: dict[str, int]) -> list[Question]:
    return [
        Question(f"{name}{n}", f"{name} {'x' * n}", (ImageRef(name),) if name != "none" else (), ("x",))
        for name, count in counts.items()
        for n in range(count)
    ]


def asked(questions: Sequence[Question], batch_rows: int, opens: Any = str) -> tuple[Parrot, dict[str, str]]:
    parrot = Parrot()
    answerer = ModelAnswerer(parrot, "parrot", opens, GenerationSettings(), batch_rows)  # type: ignore[arg-type]
    return parrot, {answer.id: answer.text or answer.error for answer in answerer.answer(questions)}


@pytest.mark.parametrize("batch_rows", [1, 3, 5, 100])
def test_every_question_has_its_own_answer(batch_rows: int) -> None:
    questions = about({"a": 4, "none": 3, "b": 1, "c": 7})
    parrot, said = asked(questions[::-1], batch_rows)
    marks = {question.id: "<image>\n" * len(question.images) for question in questions}
    assert said == {question.id: marks[question.id] + question.prompt for question in questions}
    assert all(len(batch) <= batch_rows for batch in parrot.batches)
    assert all(len({len(request.images) for request in batch}) == 1 for batch in parrot.batches)


def test_the_questions_of_a_picture_are_not_torn_apart() -> None:
    parrot, _ = asked(about({"a": 4, "b": 4, "c": 2, "d": 3}), 6)
    seen = [name for batch in parrot.batches for name in {id(request.images) for request in batch}]
    assert len(seen) == 4


def test_more_questions_than_a_batch_holds_are_dealt_evenly() -> None:
    parrot, _ = asked(about({"a": 34}), 32)
    assert [len(batch) for batch in parrot.batches] == [17, 17]


def test_each_picture_is_opened_once_in_order_and_ahead_of_its_turn() -> None:
    seen: list[str] = []
    second = threading.Event()

    def opens(ref: ImageRef) -> str:
        seen.append(ref.path)
        if ref.path == "p2":
            second.set()
        return ref.path

    portions = [[Question("q", "?", (ImageRef(f"p{n}"),), ())] for n in range(20)]
    made = opened(portions, opens, workers=1, ahead=2)
    first = next(made)
    assert second.wait(10)  # while the first is being used
    assert first.images == ("p0",)
    assert len(seen) <= 4
    assert [one.images[0] for one in made] == [f"p{n}" for n in range(1, 20)]
    assert seen == [f"p{n}" for n in range(20)]


def test_a_picture_that_cannot_be_read_spoils_only_its_own_questions() -> None:
    def opens(ref: ImageRef) -> str:
        if ref.path == "b":
            raise UserError("b: damaged")
        return ref.path

    _, said = asked(about({"a": 2, "b": 2}), 8, opens)
    assert said == {"a0": "<image>\na ", "a1": "<image>\na x", "b0": "b: damaged", "b1": "b: damaged"}


def test_a_fault_in_opening_is_not_hidden() -> None:
    def opens(ref: ImageRef) -> str:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        asked(about({"a": 1}), 8, opens)
