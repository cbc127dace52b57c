"""The contract of a benchmark, run on every file of `evaluate/benchmarks`; a new file passes it unedited.

A benchmark offers `example(folder)`: itself on a small made-up set written to `folder`.
"""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bunny.core.errors import UserError
from bunny.core.protocols import Benchmark
from bunny.core.recipe import find, names
from bunny.core.types import Answer
from bunny.evaluate import BENCHMARKS, Blind, evaluate, majority, score
from bunny.evaluate.official.benchmark import PROFILES, OfficialBenchmark
from bunny.evaluate.report import as_json
from bunny.evaluate.score_file import score_file, with_profile
from tests.evaluate.stubs import Stub, gold
from tests.evaluate.test_official_text import TEXT


@pytest.fixture(params=names(BENCHMARKS))
def benchmark(request: pytest.FixtureRequest, tmp_path: Path) -> Benchmark:
    made: Benchmark = find(request.param, BENCHMARKS, "contract").example(tmp_path)  # type: ignore[attr-defined]
    assert isinstance(made, Benchmark)
    return made


def gold_answers(benchmark: Benchmark) -> list[Answer]:
    return [Answer(question.id, question.gold[0]) for question in benchmark.questions()]


def full(benchmark: Benchmark) -> float:
    """The headline of perfect answers: 100 unless the benchmark says otherwise."""
    return float(getattr(benchmark, "full", 100))


def test_gold_answers_score_full(benchmark: Benchmark) -> None:
    result = score(benchmark, gold_answers(benchmark)).result
    assert result.headline.score == result.headline.high == pytest.approx(full(benchmark))
    assert result.headline.low <= result.headline.high
    assert result.statuses["ok"] == result.n == len(benchmark.questions())


@pytest.mark.parametrize("text", ["", "  \n", "?!"])
def test_empty_answers_are_counted_and_wrong(benchmark: Benchmark, text: str) -> None:
    result = score(benchmark, [Answer(question.id, text) for question in benchmark.questions()]).result
    assert result.headline.score == 0
    assert result.statuses["empty"] == result.n


def test_missing_answers_are_counted_and_wrong(benchmark: Benchmark) -> None:
    answers = gold_answers(benchmark)[1:]
    result = score(benchmark, answers).result
    assert result.headline.score < full(benchmark)
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


PUBLISHED = [name for name in names(BENCHMARKS) if issubclass(find(name, BENCHMARKS, "contract"), OfficialBenchmark)]
ODD = [
    "",
    " ",
    "\x00 �",
    "(B) or not",
    "None",
    "nan",
    "红",
    "A" * 5000,
    "１２",
    "Yes",
    "\r\n\t",
    "对错",
    "1e999",
    "\ud800",
]


@pytest.fixture(params=PUBLISHED)
def published(request: pytest.FixtureRequest, tmp_path: Path) -> OfficialBenchmark:
    made = find(request.param, BENCHMARKS, "contract").example(tmp_path)  # type: ignore[attr-defined]
    assert isinstance(made, OfficialBenchmark)
    return made


@pytest.mark.parametrize("profile", PROFILES)
def test_every_profile_reads_odd_answers_and_counts_each_once(published: OfficialBenchmark, profile: str) -> None:
    benchmark = with_profile(published, profile)
    questions = benchmark.questions()
    for turn in (0, 4, 9):
        answers = [Answer(question.id, ODD[(row + turn) % len(ODD)]) for row, question in enumerate(questions)]
        result = score(benchmark, answers).result
        assert sum(result.statuses.values()) == result.n
        assert 0 <= result.headline.low <= result.headline.score <= result.headline.high


@pytest.mark.parametrize("profile", PROFILES)
def test_what_was_read_reads_the_same_again(published: OfficialBenchmark, profile: str) -> None:
    benchmark = with_profile(published, profile)
    for question in benchmark.questions():
        for text in [*ODD, *question.gold, "A", "B.", "yes", "No, it is not."]:
            value = benchmark.parse(question, Answer(question.id, text)).value
            assert benchmark.parse(question, Answer(question.id, value)).value == value


def test_a_model_is_asked_read_and_scored_by_the_runner(published: OfficialBenchmark) -> None:
    outcome = evaluate(published, Stub(gold), baselines={"majority": majority(published), "blind": Blind(Stub(gold))})
    assert outcome.result.headline.score == pytest.approx(full(published))
    assert outcome.gains().keys() == {"majority", "blind"}
    assert all(Path(image.path).exists() for question in outcome.questions for image in question.images)


def test_a_file_of_gold_answers_gives_the_same_score_as_a_run(published: OfficialBenchmark, tmp_path: Path) -> None:
    questions = published.questions()
    rows = [{"question_id": q.id, "text": q.gold[0]} for q in reversed(questions)]
    path = tmp_path / "answers.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    scored = score_file(published, path)
    assert scored.result.headline.score == pytest.approx(full(published))
    assert scored.reading()["counts"] == dict.fromkeys(scored.reading()["counts"], 0)


def test_unknown_repeated_and_missing_rows_are_named(published: OfficialBenchmark, tmp_path: Path) -> None:
    questions = published.questions()
    first = {"question_id": questions[0].id, "text": questions[0].gold[0]}
    rows = [{**first, "text": "?"}, {"question_id": "nobody", "text": "yes"}, first]
    path = tmp_path / "answers.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"question_id": 1, "te')
    reading = score_file(published, path).reading()
    assert reading["counts"]["missing"] == len(questions) - 1
    assert reading["counts"]["unknown_ids"] == reading["counts"]["duplicate_ids"] == 1
    assert reading["counts"]["unread_lines"] == 1
    assert reading["first"]["unknown_ids"] == ["nobody"]


def test_says_which_file_is_missing_and_where_to_get_it(published: OfficialBenchmark, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(UserError, match=rf"^{published.name}: .*empty.*get it from http"):
        published.model_copy(update={"data": empty}).load()


def test_a_missing_picture_is_named_before_a_model_is_asked(published: OfficialBenchmark) -> None:
    published.prepare()
    picture = Path(published.questions()[0].images[0].path)
    if picture.suffix == ".parquet":
        return  # the pictures are in the question file
    picture.unlink()
    if published.name.startswith("mmbench"):
        published.prepare()  # written out of the table again
        assert picture.exists()
    else:
        with pytest.raises(UserError, match="pictures are missing, first"):
            published.prepare()


def test_every_reading_is_explained_and_every_file_has_a_link(published: OfficialBenchmark) -> None:
    assert set(published.RULES) == set(PROFILES)
    assert published.FILES and all(known.link.startswith("http") for known in published.FILES)


SPOILT = [b"", b"{", b"[]", b"{}", b"null", b"7", b'{"a": 1}\n', b'[{"a": 1}]', b'{"a": [1]}', b"a\tb\n1\t2\n"]
SPOILT.append(b"\xff\xfe\x00")
PICTURES = (".png", ".jpg")


@pytest.mark.parametrize("content", SPOILT, ids=repr)
def test_a_spoilt_question_file_is_a_one_line_error_that_names_it(published: OfficialBenchmark, content: bytes) -> None:
    folder = published.folder()
    for path in sorted(each for each in folder.rglob("*") if each.is_file() and each.suffix not in PICTURES):
        whole = path.read_bytes()
        path.write_bytes(content)
        try:
            questions = published.questions()
        except UserError as error:
            assert "\n" not in str(error)
            assert published.name in str(error) or str(folder) in str(error)
        else:
            assert all(question.id for question in questions)
        path.write_bytes(whole)


@given(text=TEXT, choices=st.integers(0, 3))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_text_is_read_without_an_error_and_reads_the_same_again(
    published: OfficialBenchmark, text: str, choices: int
) -> None:
    questions = published.questions()
    question = questions[choices % len(questions)]
    for profile in PROFILES:
        benchmark = with_profile(published, profile)
        parsed = benchmark.parse(question, Answer(question.id, text))
        assert 0 <= benchmark.credit(question, parsed) <= 1
        assert benchmark.parse(question, Answer(question.id, parsed.value)).value == parsed.value


def test_an_empty_answers_file_is_refused(published: OfficialBenchmark, tmp_path: Path) -> None:
    path = tmp_path / "empty.jsonl"
    path.write_text("")
    with pytest.raises(UserError, match="no answers in it"):
        score_file(published, path)


def test_answers_of_none_and_na_are_answers(published: OfficialBenchmark, tmp_path: Path) -> None:
    questions = published.questions()
    for suffix in ("jsonl", "tsv"):
        path = tmp_path / f"answers.{suffix}"
        rows = [(question.id, ("None", "NA", "nan", "null")[row % 4]) for row, question in enumerate(questions)]
        if suffix == "jsonl":
            path.write_text("".join(json.dumps({"question_id": id, "text": text}) + "\n" for id, text in rows))
        else:
            path.write_text("question_id\ttext\n" + "".join(f"{id}\t{text}\n" for id, text in rows))
        scored = score_file(published, path)
        assert scored.reading()["counts"]["missing"] == scored.reading()["statuses"]["empty"] == 0
        assert {given.text for given in scored.read.given if given} <= {"None", "NA", "nan", "null"}
