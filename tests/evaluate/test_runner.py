"""Every question is asked once, joined by id, and accounted for."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bunny.core.errors import UserError
from bunny.core.types import Answer, ImageRef, Question
from bunny.evaluate import AnswerCache, evaluate, score
from bunny.evaluate.runner import ask_share, share
from tests.evaluate.stubs import Colours, Stub, ask, gold


def test_gold_answers_score_full() -> None:
    outcome = evaluate(Colours(), Stub(gold))
    assert outcome.result.headline.score == 100
    assert outcome.result.statuses == {
        "ok": 12,
        "fallback": 0,
        "guessed": 0,
        "empty": 0,
        "malformed": 0,
        "missing": 0,
        "error": 0,
    }


def test_asks_only_what_the_cache_does_not_hold(tmp_path: Path) -> None:
    first = Stub(gold)
    expected = evaluate(Colours(Colours().rows[:5]), first, cache=AnswerCache(tmp_path / "c.jsonl"))
    second = Stub(gold)
    outcome = evaluate(Colours(), second, cache=AnswerCache(tmp_path / "c.jsonl"))
    assert expected.result.n == 5 and len(first.asked) == 5
    assert [question.id for question in second.asked] == [f"q{row}" for row in range(5, 12)]
    assert outcome.result == evaluate(Colours(), Stub(gold)).result


def test_goes_on_after_the_answerer_has_died(tmp_path: Path) -> None:
    def die_at_q7(question: Question) -> str:
        if question.id == "q7":
            raise RuntimeError("power cut")
        return gold(question)

    with pytest.raises(RuntimeError, match="power cut"):
        evaluate(Colours(), Stub(die_at_q7), cache=AnswerCache(tmp_path / "c.jsonl"))
    second = Stub(gold)
    evaluate(Colours(), second, cache=AnswerCache(tmp_path / "c.jsonl"))
    assert [question.id for question in second.asked] == ["q7", "q8", "q9", "q10", "q11"]


def test_another_model_or_setting_is_asked_anew(tmp_path: Path) -> None:
    cache = AnswerCache(tmp_path / "c.jsonl")
    evaluate(Colours(), Stub(gold, "one"), cache=cache, settings={"beams": 1})
    other, same, setting = Stub(gold, "two"), Stub(gold, "one"), Stub(gold, "one")
    evaluate(Colours(), other, cache=cache, settings={"beams": 1})
    evaluate(Colours(), same, cache=cache, settings={"beams": 1})
    evaluate(Colours(), setting, cache=cache, settings={"beams": 2})
    assert [len(stub.asked) for stub in (other, same, setting)] == [12, 0, 12]


class Careless:
    """Leaves out some questions and fails on others."""

    name = "careless"

    def __init__(self) -> None:
        self.asked = 0

    def answer(self, questions: Sequence[Question]) -> Iterator[Answer]:
        self.asked += len(questions)
        for question in reversed(questions):
            if question.id == "q1":
                yield Answer(question.id, "", error="a.png: no such file")
            elif question.id not in ("q3", "q4"):
                yield Answer(question.id, gold(question))


def test_missing_and_failed_answers_count_as_wrong_and_are_reported(caplog: pytest.LogCaptureFixture) -> None:
    outcome = evaluate(Colours(), Careless())
    assert outcome.result.headline.score == pytest.approx(75)
    assert outcome.result.statuses == {
        "ok": 9,
        "fallback": 0,
        "guessed": 0,
        "empty": 0,
        "malformed": 0,
        "missing": 2,
        "error": 1,
    }
    assert "3 of 12 questions have no answer and count as wrong; first `q1`: a.png: no such file" in caplog.text
    assert [bool(answer.error) for answer in outcome.answers] == [row in (1, 3, 4) for row in range(12)]


def test_failed_answers_are_asked_again(tmp_path: Path) -> None:
    cache, careless = AnswerCache(tmp_path / "c.jsonl"), Careless()
    for expected in (12, 15):
        evaluate(Colours(), careless, cache=cache)
        assert careless.asked == expected


def test_order_of_answers_is_irrelevant() -> None:
    answers = [Answer(question.id, "red") for question in Colours().rows]
    one, other = score(Colours(), answers), score(Colours(), answers[::-1])
    assert one.result == other.result and one.answers == other.answers


@pytest.mark.parametrize(
    ("ids", "message"),
    [(["q0", "x9"], "an answer to `x9`, which is no question"), (["q0", "q0"], "two answers to `q0`")],
)
def test_foreign_and_repeated_answers_are_refused(ids: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        score(Colours(), [Answer(id, "red") for id in ids])


def test_benchmarks_without_questions_or_with_repeated_ids_are_refused() -> None:
    with pytest.raises(UserError, match="no questions"):
        evaluate(Colours([]), Stub(gold))
    with pytest.raises(UserError, match=r"1 question id\(s\) come twice, first `q1`"):
        evaluate(Colours([ask("a", 1), ask("b", 1)]), Stub(gold))


def test_results_hold_baselines_and_paired_gains() -> None:
    outcome = evaluate(Colours(), Stub(gold), baselines={"red": Stub(lambda _: "red", "always red")})
    tree = json.loads(json.dumps(outcome.as_json()))
    assert (tree["score"], tree["n"], tree["clusters"]) == (100, 12, 4)
    assert tree["baselines"] == {"red": 50}
    assert set(tree["baseline_intervals"]["red"]) == {"score", "low", "high"}
    assert tree["gains"]["red"]["score"] == 50
    assert outcome.baselines["red"].answerer == "always red"


def test_every_question_has_its_line() -> None:
    rows = [json.loads(line) for line in evaluate(Colours(), Careless()).lines()]
    assert [row["id"] for row in rows] == [f"q{row}" for row in range(12)]
    assert rows[1]["error"] and rows[1]["points"] == 0
    asked = {
        "id": "q2",
        "group": "p0",
        "category": "",
        "prompt": "Say blue, take 2.",
        "images": ["p0.png"],
        "gold": ["blue"],
    }
    assert rows[2] == asked | {"answer": "blue", "error": "", "value": "blue", "status": "ok", "points": 1.0}


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), max_size=40), st.integers(1, 5))
def test_shares_are_all_questions_once_and_no_picture_is_dealt_twice(rows: list[tuple[int, bool]], ranks: int) -> None:
    questions = [
        Question(f"q{n}", "?", (ImageRef(f"p{picture}"),) if seen else (), ()) for n, (picture, seen) in enumerate(rows)
    ]
    shares = [share(questions, rank, ranks) for rank in range(ranks)]
    assert sorted(q.id for some in shares for q in some) == sorted(q.id for q in questions)
    owners = [{(rank, q.images) for q in some if q.images} for rank, some in enumerate(shares)]
    assert len(set().union(*owners)) == len({q.images for q in questions if q.images})
    biggest = max((sum(q.images == p.images for q in questions) for p in questions if p.images), default=1)
    assert max(map(len, shares)) - min(map(len, shares)) <= biggest


def test_what_two_processes_answered_is_not_asked_again(tmp_path: Path) -> None:
    path, asked = tmp_path / "answers.jsonl", []
    for rank in range(2):
        stub = Stub(gold)
        ask_share(Colours(), {"model": stub}, AnswerCache(path, rank), None, rank, 2)
        asked += [question.id for question in stub.asked]
    last = Stub(gold)
    assert evaluate(Colours(), last, cache=AnswerCache(path)).result == evaluate(Colours(), Stub(gold)).result
    assert last.asked == []
    assert sorted(asked) == sorted(question.id for question in Colours().rows)
