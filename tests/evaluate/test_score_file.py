"""Answers files and question files that are not as they should be: a clear word, and nothing lost."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bunny.core.errors import UserError
from bunny.core.recipe import find
from bunny.evaluate import BENCHMARKS
from bunny.evaluate.answers import read_answers
from bunny.evaluate.audit import audit
from bunny.evaluate.doctor import examine
from bunny.evaluate.files import sheet_of, table_of, write_json, write_jsonl, write_sheet
from bunny.evaluate.official.benchmark import ROOT, OfficialBenchmark
from bunny.evaluate.score_file import Scored, score_file, with_profile


def made(task: str, folder: Path, profile: str = "bunny") -> OfficialBenchmark:
    folder.mkdir(exist_ok=True)
    benchmark = find(task, BENCHMARKS, "test").example(folder)  # type: ignore[attr-defined]
    assert isinstance(benchmark, OfficialBenchmark)
    return with_profile(benchmark, profile)


def scored(benchmark: OfficialBenchmark, rows: list[dict[str, Any]], path: Path) -> Scored:
    write_jsonl(path, rows)
    return score_file(benchmark, path)


@pytest.mark.parametrize("profile", ["bunny", "official", "strict"])
@pytest.mark.parametrize("word", ["No", "Yes", ""])
def test_pope_with_one_answer_to_everything_is_scored(tmp_path: Path, word: str, profile: str) -> None:
    benchmark = made("pope", tmp_path, profile)
    rows = [{"question_id": question.id, "text": word} for question in benchmark.questions()]
    numbers = scored(benchmark, rows, tmp_path / "answers.jsonl").numbers["numbers"]
    all_yes = word == "Yes" or (word == "" and profile != "strict")
    assert numbers["random"]["f1_score"] == pytest.approx(2 / 3 if all_yes else 0)


def test_mme_in_the_original_pairs_anew_after_a_spoilt_line(tmp_path: Path) -> None:
    """An answer with a tab is no line of the text file; where one line is left over, the original would stop."""
    benchmark = made("mme", tmp_path)
    rows = [
        {"question_id": q.id, "text": q.gold[0] + ("\tx" if n == 0 else "")}
        for n, q in enumerate(benchmark.questions())
    ]
    answers = scored(benchmark, rows, tmp_path / "answers.jsonl")
    assert answers.numbers["headline"]["mme_p"] == 1900  # a single right answer: 100, and no pair
    assert answers.result.headline.score == 2000
    official = score_file(with_profile(benchmark, "official"), tmp_path / "answers.jsonl")
    assert official.numbers["headline"]["mme_p"] == 2000


def test_scienceqa_in_the_original_forgets_missing_pictures(tmp_path: Path) -> None:
    benchmark = made("scienceqa", tmp_path)
    rows = [
        {"question_id": q.id, "text": q.gold[0], "prompt": "<image>\n" * bool(q.images)} for q in benchmark.questions()
    ]
    path = tmp_path / "answers.jsonl"
    assert scored(benchmark, rows[1:], path).numbers["headline"] == {"sqa_img": 100, "sqa_all": 75}
    official = score_file(with_profile(benchmark, "official"), path)
    assert official.numbers["headline"]["sqa_img"] == pytest.approx(200 / 3)


def test_mmmu_draws_the_same_letters_in_any_order_of_the_file(tmp_path: Path) -> None:
    benchmark = made("mmmu", tmp_path, "official")
    rows = [{"id": question.id, "response": "?"} for question in benchmark.questions()]
    one = scored(benchmark, rows, tmp_path / "one.jsonl").read.parsed
    assert [item.status for item in one].count("guessed") == 2
    assert one == scored(benchmark, rows[::-1], tmp_path / "other.jsonl").read.parsed
    assert {
        item.status for item in score_file(with_profile(benchmark, "strict"), tmp_path / "one.jsonl").read.parsed
    } == {"empty"}


def test_options_none_and_na_stay_options(tmp_path: Path) -> None:
    benchmark = made("mmbench_en", tmp_path, "strict")
    first = next(question for question in benchmark.questions() if question.id == "241")
    assert first.meta["options"] == {"A": "cat", "B": "None"} and "\nB. None\n" in first.prompt
    book = tmp_path / "answers.xlsx"
    write_sheet(book, [{"index": int(q.id), "prediction": q.gold[0], "A": "None"} for q in benchmark.questions()])
    assert score_file(benchmark, book).result.headline.score == 100


def test_control_characters_do_not_stop_an_excel_file(tmp_path: Path) -> None:
    write_sheet(tmp_path / "a.xlsx", [{"index": 1, "prediction": "a\x00b\x07"}])
    assert sheet_of(tmp_path / "a.xlsx") == [{"index": 1, "prediction": "ab"}]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.jsonl", "", "no answers in it"),
        ("a.jsonl", "{nonsense\n", "no answers in it"),
        ("a.jsonl", "[1]\n", "not an object"),
        ("a.jsonl", '{"text": "yes"}\n', "no question id"),
        ("a.jsonl", '{"question_id": 1}\n', "no answer"),
        ("a.json", "{", "no valid JSON"),
        ("a.json", '"yes"', "neither a list nor a mapping"),
        ("a.json", "[]", "no answers in it"),
        ("a.xlsx", "no zip", "cannot be read as Excel"),
        ("a.tsv", "question_id\tprediction\n1\n", "fewer cells than the header"),
        ("a.tsv", "question_id\tprediction\n1\ta\tb\n", "more cells than the header"),
        ("a.txt", "yes", "answers come as"),
        ("a.jsonl", b"\xff\xfe\x00", "UTF-8"),
    ],
)
def test_answer_files_that_are_none_are_refused_by_name(tmp_path: Path, name: str, content: Any, said: str) -> None:
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match=f"{name}.*{said}"):
        read_answers(path)


def test_folders_without_answers_are_refused(tmp_path: Path) -> None:
    (tmp_path / "preds").mkdir()
    with pytest.raises(UserError, match=r"no SUBJECT/output\.json"):
        read_answers(tmp_path / "preds")
    with pytest.raises(UserError, match="no such file or folder"):
        read_answers(tmp_path / "nothing")


def test_answers_to_another_benchmark_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="none of its 1 answers belongs to a question of pope; is it the right split"):
        scored(made("pope", tmp_path), [{"question_id": "x", "text": "yes"}], tmp_path / "answers.jsonl")


@pytest.mark.parametrize(
    ("task", "file", "content", "said"),
    [
        ("pope", "bunny_pope_test.jsonl", "{\n", r"bunny_pope_test.jsonl:1: no valid JSON"),
        (
            "pope",
            "bunny_pope_test.jsonl",
            '{"question_id": 1}\n',
            "question 1: no field `image`; fields there: question_id",
        ),
        ("pope", "coco/coco_pope_random.json", "", "no label for it in coco_pope_random.json"),
        ("gqa", "testdev_balanced_questions.json", "[", "no valid JSON"),
        ("mmbench_en", "MMBench_DEV_EN_legacy.tsv", "index\tquestion\nx\t?\n", "row 2: no field `image`"),
        ("scienceqa", "problems.json", "{}", "problems.json: no field `choices`"),
        ("mme", "MME_Benchmark_release_version/existence/0.txt", "", "no answer to `Is it red?`"),
        ("cmmmu", "cmmmu-data-val-answer.jsonl", '{"id": 1}\n', "no field `type`"),
    ],
)
def test_broken_question_files_are_named(tmp_path: Path, task: str, file: str, content: str, said: str) -> None:
    benchmark = made(task, tmp_path)
    (tmp_path / file).write_text(content)
    with pytest.raises(UserError, match=said.replace("?", r"\?")):
        benchmark.questions()


def test_a_question_that_is_there_twice_stops_the_scoring(tmp_path: Path) -> None:
    benchmark = made("cmmmu", tmp_path)
    path = tmp_path / "cmmmu-data-val-answer.jsonl"
    path.write_text(path.read_text() * 2)
    with pytest.raises(UserError, match="question `1` is there twice"):
        scored(benchmark, [{"id": 1, "response": "A"}], tmp_path / "answers.jsonl")


def test_a_table_with_quoted_line_breaks_and_tabs_is_read(tmp_path: Path) -> None:
    path = tmp_path / "t.tsv"
    path.write_text('index\tA\n1\t"a\tb\nc ""d"""\n2\tNA\n', encoding="utf-8-sig")
    assert table_of(path) == [{"index": "1", "A": 'a\tb\nc "d"'}, {"index": "2", "A": "NA"}]


def test_grades_out_of_range_are_refused(tmp_path: Path) -> None:
    benchmark = made("mmvet", tmp_path)
    write_json(tmp_path / "grades.json", {"v1_0": {"score": [7.0]}})
    with pytest.raises(UserError, match=r"v1_0: grades .* not from 0 to 1"):
        score_file(benchmark, tmp_path / "grades.json")


def test_the_audit_lists_where_the_readings_part_and_why(tmp_path: Path) -> None:
    benchmark = made("seedbench", tmp_path)
    rows = [{"question_id": "7", "text": "A"}, {"question_id": "v3", "text": "B."}, {"question_id": "8", "text": "owl"}]
    write_jsonl(tmp_path / "answers.jsonl", rows)
    found = audit(benchmark, tmp_path / "answers.jsonl")
    assert [each.id for each in found.differences] == ["v3", "8"]
    first, second = found.differences
    assert first.worth == {"bunny": 0, "official": 0, "strict": 1, "lmms_eval": 1, "vlmevalkit": 1}
    assert first.why == "bunny, official: nothing (not read) = 0; strict, lmms_eval, vlmevalkit: `B` = 1"
    assert second.worth["vlmevalkit"] == 1 and "`C` (found in the answer) = 1" in second.why
    assert json.loads(json.dumps(found.as_json()))["n_differences"] == 2


def test_the_doctor_tells_missing_short_and_changed_files(tmp_path: Path) -> None:
    benchmark = made("pope", tmp_path)
    (tmp_path / "coco/coco_pope_random.json").unlink()
    found = {each.file.path: each for each in examine(benchmark, tmp_path)}
    assert found["coco/coco_pope_random.json"].state == "missing"
    assert found["coco/coco_pope_popular.json"].detail == "4 of 3000 rows"
    assert (
        found["bunny_pope_test.jsonl"].state == "changed" and found["bunny_pope_test.jsonl"].detail == "12 of 8910 rows"
    )
    assert found["val2014"].state == "there"
    assert {each.state for each in examine(benchmark, tmp_path / "nowhere")} == {"missing"}


def test_the_root_folder_stands_for_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made("gqa", tmp_path / "gqa")
    benchmark = find("gqa", BENCHMARKS, "test")()
    monkeypatch.delenv(ROOT, raising=False)
    with pytest.raises(UserError, match=f"set {ROOT}"):
        benchmark.questions()  # type: ignore[attr-defined]
    monkeypatch.setenv(ROOT, str(tmp_path))
    assert len(benchmark.questions()) == 4  # type: ignore[attr-defined]
