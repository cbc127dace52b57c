"""Baselines are honest: they know what they may know."""

from collections.abc import Sequence
from dataclasses import replace
from types import MappingProxyType

import pytest

from bunny.core.errors import UserError
from bunny.core.types import Question
from bunny.evaluate import Blind, evaluate, majority, shuffled
from tests.evaluate.stubs import Colours, Stub, ask, gold


class WithTraining(Colours):
    def training(self) -> Sequence[Question]:
        return [ask("t", row, "green") for row in range(3)] + [ask("t", row) for row in range(3)]


def test_majority_without_training_questions_takes_the_best_constant_of_the_test_set_and_says_so() -> None:
    rows = [ask("p", 0, "red"), ask("p", 1, "blue"), ask("p", 2, "blue")]
    baseline = majority(Colours(rows))
    assert baseline.name == "most frequent answer of the test questions (blue)"
    assert evaluate(Colours(rows), baseline).result.headline.score == pytest.approx(200 / 3)


def test_majority_of_training_questions_is_used_where_there_are_any() -> None:
    baseline = majority(WithTraining())
    assert baseline.name == "most frequent answer of the training questions (green)"
    assert evaluate(WithTraining(), baseline).result.headline.score == 0


def test_majority_goes_by_kind_and_breaks_ties_by_the_alphabet() -> None:
    kinds = [("a", "yes"), ("a", "no"), ("b", "cat"), ("b", "cat"), ("b", "ant")]
    rows = [
        replace(ask("p", row, answer), meta=MappingProxyType({"kind": kind}))
        for row, (kind, answer) in enumerate(kinds)
    ]
    assert majority(Colours(rows)).table == {"a": "no", "b": "cat"}


def test_blind_shows_no_picture_and_asks_every_text_once() -> None:
    model = Stub(gold, "model")
    outcome = evaluate(Colours(), Blind(model))
    assert [question.images for question in model.asked] == [()] * 6
    assert outcome.result.headline.score == 100 and outcome.answerer == "model, without pictures"


def test_shuffled_shows_every_question_the_same_wrong_picture_whatever_part_is_asked() -> None:
    rows = Colours().rows
    whole, part = Stub(gold), Stub(gold)
    list(shuffled(whole, rows, seed=3).answer(rows))
    list(shuffled(part, rows, seed=3).answer(rows[6:]))
    assert all(shown.images != true.images for shown, true in zip(whole.asked, rows, strict=True))
    assert part.asked == whole.asked[6:]
    assert {shown.images for shown in whole.asked} == {question.images for question in rows}


def test_shuffled_names_its_swaps() -> None:
    names = {shuffled(Stub(gold), Colours().rows, seed).name for seed in range(4)}
    assert len(names) > 1


def test_one_picture_cannot_be_shuffled() -> None:
    with pytest.raises(UserError, match="fewer than two"):
        shuffled(Stub(gold), Colours().rows[:3])
