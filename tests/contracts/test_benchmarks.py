"""The contract of a benchmark, run on every file of `evaluate/benchmarks`; a new file passes it unedited.

A benchmark offers `example(folder)`: itself on a small made-up set written to `folder`.
"""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from bunny.core.protocols import Benchmark
from bunny.core.recipe import find, names
from bunny.core.types import Answer
from bunny.evaluate import BENCHMARKS, score
from bunny.evaluate.report import as_json


@pytest.fixture(params=names(BENCHMARKS))
def benchmark(request: pytest.FixtureRequest, tmp_path: Path) -> Benchmark:
    made: Benchmark = find(request.param, BENCHMARKS, "contract").example(tmp_path)  # type: ignore[attr-defined]
    assert isinstance(made, Benchmark)
    return made


def gold_answers(benchmark: Benchmark) -> list[Answer]:
    return [Answer(question.id, question.gold[0]) for question in benchmark.questions()]


def test_gold_answers_score_full(benchmark: Benchmark) -> None:
    result = score(benchmark, gold_answers(benchmark)).result
    assert result.headline.score == result.headline.high == 100
    assert result.headline.low < 100
    assert result.statuses["ok"] == result.n == len(benchmark.questions())


@pytest.mark.parametrize("text", ["", "  \n", "?!"])
def test_empty_answers_are_counted_and_wrong(benchmark: Benchmark, text: str) -> None:
    result = score(benchmark, [Answer(question.id, text) for question in benchmark.questions()]).result
    assert result.headline.score == 0
    assert result.statuses["empty"] == result.n


def test_missing_answers_are_counted_and_wrong(benchmark: Benchmark) -> None:
    answers = gold_answers(benchmark)[1:]
    result = score(benchmark, answers).result
    assert result.headline.score < 100
    assert result.statuses["missing"] == 1 and result.n == len(answers) + 1


def test_every_answer_has_one_status(benchmark: Benchmark) -> None:
    texts = ["", "yes", "no", "\x00 �", "A" * 5000, "红", "(B) or not", "None", "nan"]
    answers = [Answer(question.id, texts[row % len(texts)]) for row, question in enumerate(benchmark.questions())]
    result = score(benchmark, answers).result
    assert sum(result.statuses.values()) == result.n
    assert 0 <= result.headline.low <= result.headline.score <= result.headline.high


def test_shuffled_answers_score_the_same(benchmark: Benchmark) -> None:
    answers = gold_answers(benchmark)[::2] + [Answer(q.id, "no") for q in benchmark.questions()[1::2]]
    order = np.random.default_rng(0).permutation(len(answers)).tolist()
    one, other = score(benchmark, answers), score(benchmark, [answers[row] for row in order])
    assert one.result == other.result
    assert one.parsed == other.parsed


def test_questions_are_stable_and_their_ids_unique(benchmark: Benchmark) -> None:
    questions = list(benchmark.questions())
    assert questions and questions == list(benchmark.questions())
    assert len({question.id for question in questions}) == len(questions)


def test_questions_can_be_answered_and_clustered(benchmark: Benchmark) -> None:
    for question in benchmark.questions():
        assert question.prompt.strip() and "<image>" not in question.prompt
        assert question.gold and all(question.gold)
        assert question.group


def test_questions_about_one_picture_come_together(benchmark: Benchmark) -> None:
    shown = [question.images for question in benchmark.questions()]
    changes = sum(one != other for one, other in pairwise(shown))
    assert changes == len(set(shown)) - 1


def test_result_is_plain_json(benchmark: Benchmark) -> None:
    tree = as_json([score(benchmark, gold_answers(benchmark))])
    task = tree[benchmark.name]
    assert json.loads(json.dumps(tree, allow_nan=False)) == tree
    assert {"score", "low", "high", "n", "baselines", "scores", "statuses"} <= task.keys()
