"""Every number of the official scripts on frozen answers, under the profile that stands for the script."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from bunny.cli.app import app
from bunny.core.recipe import find
from bunny.core.types import IMAGE_MARK, Question, Turn
from bunny.evaluate import BENCHMARKS
from bunny.evaluate.answers import Given
from bunny.evaluate.official.benchmark import OfficialBenchmark
from bunny.evaluate.official.mmmu_questions import question_of
from bunny.evaluate.score_file import score_file, submit
from bunny.text.template import Template
from tests.evaluate.golden import HERE, Case, at, cases, cut, differences, numbers_of, times

ALL = list(cases())
PROMPTS = json.loads((HERE / "prompts.json").read_text(encoding="utf-8"))
SETS = {"seedbench": "seedbench/a", "cmmmu": "cmmmu_val/a", "vqav2": "vqav2_val/a", "textvqa": "textvqa_val/a"}
SETS |= {"scienceqa": "scienceqa_img/a"}


def benchmark(task: str, data: Path | None, profile: str = "bunny") -> OfficialBenchmark:
    made = find(task, BENCHMARKS, "golden").model_validate({"data": data, "profile": profile})
    assert isinstance(made, OfficialBenchmark)
    return made


def score_by_command(case: Case, folder: Path) -> dict[str, Any]:
    """What `bunny eval score … --json` prints for a case."""
    words = ["eval", "score", case.task, str(folder / "preds" / case.answers), "--profile", case.profile, "--json"]
    words += ["--data", str(folder / case.data)] if case.data else []
    ran = CliRunner().invoke(app, words)
    assert ran.exit_code == 0, ran.stderr
    tree: dict[str, Any] = json.loads(ran.stdout)
    return tree


def there(case: Case) -> Path:
    folder = case.folder()
    if folder is None:
        pytest.skip(f"{case.set} is not in tests/golden/evals; set BUNNY_GOLDEN")
    return folder


@pytest.mark.parametrize("case", ALL, ids=str)
def test_every_number_of_the_script_comes_out(case: Case) -> None:
    ours = score_by_command(case, there(case))
    ours |= {"in_percent": times(ours, 100), "as_share": times(ours, 1 / 100)}
    expected = case.expected()
    wrong = [
        each
        for theirs, mine in case.numbers.items()
        for each in differences(at(expected, theirs), cut(at(ours, mine), case.digits), mine)
    ]
    assert not wrong
    assert ours["n"] == expected.get("n", expected.get("n_rows"))


ABOUT = {"n", "n_rows", "n_questions", "n_balanced", "dropped_no_gt", "n_missing_predictions", "submission.columns"}
"""What `expected.json` says of the set, not of its score."""
AGAIN = {"official_eval_only.equal_to_reference", "overall_acc_under_PYTHONHASHSEED_1_2_3"}
"""What it says a second time."""


@pytest.mark.parametrize("set", sorted({case.set for case in ALL}))
def test_no_number_of_the_script_is_left_out(set: str) -> None:
    own = [case for case in ALL if case.set == set]
    there(own[0])
    compared = [f"{place}." for case in own for place in case.numbers]
    places = [f"{place}." for place in numbers_of(own[0].expected())]
    left = {
        place[:-1] for place in places if not any(place.startswith(one) or one.startswith(place) for one in compared)
    }
    assert left <= ABOUT | AGAIN


def test_all_sets_here_are_used() -> None:
    used = {case.set for case in ALL}
    known = {f"{path.parent.parent.name}/{path.parent.name}" for path in HERE.glob("*/*/expected.json")}
    assert known == used & known and len(known) >= 14


@pytest.mark.parametrize(
    ("task", "set", "answers", "written"),
    [
        ("vqav2", "vqav2_val/a", "merge_truncated.jsonl", "submission_from_truncated.json"),
        ("vizwiz", "vizwiz/a", "answers.jsonl", "submission.json"),
        ("seedbench", "seedbench/a", "answers.jsonl", "submission.jsonl"),
        ("mmvet", "mmvet/a", "answers.jsonl", "model.json"),
        ("mmbench_en", "mmbench_en/a", "answers.jsonl", "submission.xlsx"),
        ("mmbench_cn", "mmbench_cn/a", "answers.jsonl", "submission.xlsx"),
        ("mmmu", "mmmu_val/a", "raw_outputs", "bunny_output.json"),
    ],
)
def test_submissions_equal_the_originals(task: str, set: str, answers: str, written: str, tmp_path: Path) -> None:
    folder = HERE / set
    path = tmp_path / written
    submit(score_file(benchmark(task, folder / "data"), folder / "preds" / answers), path)
    assert rows(path) == rows(folder / "preds" / written)


def rows(path: Path) -> Any:
    """What a submission says, whatever the order of its rows."""
    from bunny.evaluate.files import jsonl_of, sheet_of

    if path.suffix == ".json":
        tree = json.loads(path.read_text(encoding="utf-8"))
    else:
        tree = sheet_of(path) if path.suffix == ".xlsx" else jsonl_of(path)
    if path.suffix == ".xlsx":
        tree = [{name: str(cell) for name, cell in row.items()} for row in tree]
    return tree if isinstance(tree, dict) else sorted(tree, key=str)


@pytest.mark.parametrize("template", ["bunny", "llama", "minicpm"])  # the original's phi3 is `bunny`
@pytest.mark.parametrize("task", PROMPTS)
def test_prompts_and_lengths_equal_the_originals(task: str, template: str) -> None:
    for item in PROMPTS[task]["items"]:
        asked = question(task, item["input"])
        assert bool(asked.images) == item["has_image"] or task == "mmmu"
        mark = f"{IMAGE_MARK}\n" if item["has_image"] else ""
        pieces = Template.named(template).pieces([Turn("user", mark + asked.prompt)], answer_next=True)
        assert "".join(piece.text for piece in pieces).rstrip(" ") == item["prompt"]
        assert item["generate_kwargs"]["max_new_tokens"] == find(task, BENCHMARKS, "golden").max_new_tokens  # type: ignore[attr-defined]


def question(task: str, row: dict[str, Any]) -> Question:
    """Our question for the record that the original's script read."""
    made = benchmark(task, HERE / SETS.get(task, f"{task}/a") / "data")
    if task == "mmmu":
        return question_of(row)
    questions = made.questions()
    id = str(row.get("question_id", row.get("id", row.get("index", ""))))
    key = made.key(Given(id, "", row.get("text", "")))
    wanted = made.aliases(questions).get(key, key)
    return next(each for each in questions if each.id == wanted)
