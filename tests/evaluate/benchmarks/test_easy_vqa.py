"""easy-vqa: the official split, sampled by whole pictures."""

from collections import Counter
from pathlib import Path

import pytest

from bunny.core.errors import UserError
from bunny.core.recipe import make
from bunny.core.types import Answer
from bunny.evaluate import majority, score
from bunny.evaluate.benchmarks.easy_vqa import EasyVqa


@pytest.fixture
def example(tmp_path: Path) -> EasyVqa:
    return EasyVqa.example(tmp_path)


def test_sample_has_the_asked_size_and_whole_pictures(example: EasyVqa) -> None:
    sample = example.model_copy(update={"count": 7}).questions()
    assert sorted(Counter(question.group for question in sample).values()) == [1, 3, 3]


def test_sample_takes_at_most_so_many_questions_of_a_picture(example: EasyVqa) -> None:
    sample = example.model_copy(update={"per_picture": 2}).questions()
    assert Counter(question.group for question in sample) == {f"test-{picture}": 2 for picture in range(4)}


def test_another_seed_draws_another_sample(example: EasyVqa) -> None:
    samples = {tuple(q.id for q in example.model_copy(update={"seed": s, "count": 4}).questions()) for s in range(5)}
    assert len(samples) > 1


def test_prompt_is_the_question_and_the_suffix(example: EasyVqa) -> None:
    prompts = {question.prompt for question in example.model_copy(update={"suffix": "\nBriefly."}).questions()}
    assert "what is the shape?\nBriefly." in prompts


def test_open_and_yes_no_questions_are_scored_apart(example: EasyVqa) -> None:
    answers = [Answer(question.id, "Circle.") for question in example.questions()]
    scores = score(example, answers).result.scores
    assert (scores["open"].score, scores["yes_no"].score) == (100, 0)


def test_answer_outside_the_thirteen_is_malformed_and_wrong(example: EasyVqa) -> None:
    question = example.questions()[0]
    assert example.parse(question, Answer(question.id, "The circle")).status == "malformed"


def test_majority_is_counted_on_the_training_split_by_kind(example: EasyVqa) -> None:
    assert majority(example).table == {"open": "circle", "yes_no": "no"}


def test_missing_data_is_a_one_line_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="easy_vqa"):
        EasyVqa(data=tmp_path).questions()


@pytest.mark.demo
def test_reads_the_official_split() -> None:
    easy_vqa = pytest.importorskip("easy_vqa")
    texts, golds, pictures = easy_vqa.get_test_questions()
    questions = make({"use": "easy_vqa", "suffix": ""}, "bunny.evaluate.benchmarks", seed=3).questions()
    assert len(questions) == len(texts) == 9673
    paths = easy_vqa.get_test_image_paths()
    for question in questions:
        row = int(question.id.removeprefix("test-"))
        assert (question.prompt, question.gold[0]) == (texts[row], golds[row])
        assert Path(question.images[0].path) == Path(paths[pictures[row]])
