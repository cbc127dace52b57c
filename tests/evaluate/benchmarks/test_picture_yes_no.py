"""Clip-art yes/no: fair questions, and nothing to gain without looking."""

import hashlib
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bunny.core.errors import UserError
from bunny.core.seeds import stream
from bunny.core.types import Answer, Question
from bunny.evaluate import Blind, evaluate, score
from bunny.evaluate.benchmarks.picture_yes_no import PictureYesNo
from bunny.evaluate.pairing import pair_up
from tests.evaluate.stubs import Stub, gold

WORDS = ["dog", "cat", "owl", "tree", "car", "apple", "house", "hat"]


@pytest.fixture
def example(tmp_path: Path) -> PictureYesNo:
    return PictureYesNo.example(tmp_path)


def table(path: Path, **columns: list[list[str]]) -> PictureYesNo:
    lists = {name: pa.array(rows, pa.list_(pa.string())) for name, rows in columns.items()}
    size = len(next(iter(columns.values())))
    pq.write_table(pa.table({"image": [b""] * size, **lists}), path)
    return PictureYesNo(path=path)


@given(
    st.lists(st.frozensets(st.sampled_from(WORDS), max_size=4), max_size=14),
    st.integers(1, 3),
    st.none() | st.integers(2, 9),
    st.integers(0, 99),
)
def test_every_word_and_every_picture_gets_as_many_yes_as_no(
    present: list[frozenset[str]], rounds: int, pictures: int | None, seed: int
) -> None:
    absent = [frozenset(WORDS) - words for words in present]
    asked = pair_up(present, absent, pictures, rounds, stream("test", seed))
    for by in (lambda row, word: row, lambda row, word: word):
        balance: Counter[object] = Counter()
        for row, words in asked.items():
            for word, answer in words.items():
                balance[by(row, word)] += 1 if answer == "yes" else -1
        assert not any(balance.values())
    for row, words in asked.items():
        assert 2 <= len(words) <= 2 * rounds
        assert all((word in present[row]) == (answer == "yes") for word, answer in words.items())
    assert pictures is None or len(asked) <= pictures


def test_a_model_that_does_not_look_is_exactly_at_chance(example: PictureYesNo) -> None:
    def by_text(question: Question) -> str:
        return "yes" if hashlib.sha256(question.prompt.encode()).digest()[0] % 2 else "no"

    for model in (Blind(Stub(by_text)), Stub(lambda _: "yes"), Stub(lambda _: "no")):
        assert evaluate(example, model).result.headline.score == 50


def test_confusable_words_are_no_fair_no_in_either_direction(example: PictureYesNo) -> None:
    asked = {(question.group, question.meta["word"]) for question in example.questions()}
    owls, animals = {"3", "7"}, {"0", "3"}
    assert not {(row, "animal") for row in owls - animals} & asked
    assert not {(row, "owl") for row in animals - owls} & asked
    assert "5" not in {row for row, _ in asked}


def test_absent_column_says_what_may_be_asked_with_no(tmp_path: Path) -> None:
    words = [["dog"], ["cat"], ["car"]]
    made = table(tmp_path / "a.parquet", words=words, absent=[["car"], ["car"], ["dog"]])
    asked = {question.id: question.gold[0] for question in made.questions()}
    assert asked == {"0:dog": "yes", "0:car": "no", "2:car": "yes", "2:dog": "no"}


def test_without_an_absent_column_it_says_what_it_assumes(
    example: PictureYesNo, caplog: pytest.LogCaptureFixture
) -> None:
    example.questions()
    assert "every word that is not listed is taken to be absent" in caplog.text


def test_pictures_go_by_their_id_where_the_file_has_one(tmp_path: Path) -> None:
    rows = pa.table({"id": ["x/one", "x/two"], "image": [b"", b""], "words": [["dog"], ["cat"]]})
    pq.write_table(rows, tmp_path / "a.parquet")
    questions = PictureYesNo(path=tmp_path / "a.parquet").questions()
    assert {question.group for question in questions} == {"x/one", "x/two"}
    assert {question.images[0].member for question in questions} == {"0", "1"}


def test_words_can_be_narrowed_down(example: PictureYesNo) -> None:
    questions = example.model_copy(update={"words": ("car", "apple")}).questions()
    assert {question.meta["word"] for question in questions} == {"car", "apple"}


def test_pictures_are_limited_and_another_seed_draws_others(example: PictureYesNo) -> None:
    drawn = [example.model_copy(update={"pictures": 3, "seed": seed}).questions() for seed in range(5)]
    groups = [tuple(sorted({question.group for question in questions})) for questions in drawn]
    assert all(len(group) == 2 for group in groups) and len(set(groups)) > 1


def test_article_fits_the_word(example: PictureYesNo) -> None:
    prompts = {question.meta["word"]: question.prompt for question in example.questions()}
    assert prompts["owl"] == "Is there an owl in the picture?"
    assert prompts["car"] == "Is there a car in the picture?"


def test_questions_name_the_row_of_their_picture(example: PictureYesNo) -> None:
    for question in example.questions():
        assert question.images[0].member == question.group == question.id.split(":")[0]


def test_scores_equal_counting_by_hand(example: PictureYesNo) -> None:
    questions = example.questions()
    answers = [Answer(q.id, "yes" if row % 3 else q.gold[0]) for row, q in enumerate(questions)]
    said = [answer.text == "yes" for answer in answers]
    there = [question.gold[0] == "yes" for question in questions]
    found = sum(a and b for a, b in zip(said, there, strict=True))
    scores = score(example, answers).result.scores
    assert scores["precision"].score == pytest.approx(100 * found / sum(said))
    assert scores["recall"].score == pytest.approx(100 * found / sum(there))
    assert scores["f1"].score == pytest.approx(200 * found / (sum(said) + sum(there)))
    assert scores["yes_rate"].score == pytest.approx(100 * sum(said) / len(said))


def test_all_no_is_scored_and_does_not_crash(example: PictureYesNo) -> None:
    result = evaluate(example, Stub(lambda _: "No.")).result
    assert result.headline.score == 50
    assert (result.scores["f1"].score, result.scores["yes_rate"].score) == (0, 0)


def test_anything_but_yes_or_no_is_malformed_and_wrong(example: PictureYesNo) -> None:
    result = evaluate(example, Stub(lambda question: f"There is {gold(question)} dog")).result
    assert (result.headline.score, result.statuses["malformed"]) == (0, result.n)


def test_bad_files_are_one_line_errors(tmp_path: Path) -> None:
    (tmp_path / "text.parquet").write_text("hello")
    for path, message in (("none.parquet", "no such file"), ("text.parquet", "cannot be read")):
        with pytest.raises(UserError, match=message) as error:
            PictureYesNo(path=Path(path), folder=tmp_path).questions()
        assert "\n" not in str(error.value)
    with pytest.raises(UserError, match="no column `words`; columns there: image, other"):
        table(tmp_path / "b.parquet", other=[["dog"]]).questions()
    with pytest.raises(UserError, match="no two pictures differ"):
        table(tmp_path / "c.parquet", words=[["dog"], ["dog"], []]).questions()
