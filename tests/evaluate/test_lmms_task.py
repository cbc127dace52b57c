"""lmms-eval task files on local data: what is read, how it is scored, what is refused by name."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image

from bunny.core.errors import UserError
from bunny.core.types import ImageRef
from bunny.evaluate import evaluate
from bunny.evaluate.benchmarks.lmms_task import LmmsTask
from tests.evaluate.stubs import Stub, gold

ROWS = [
    {"q": "What is it?", "options": ["cat", "dog"], "answers": ["cat", "a cat"], "file": "a.png"},
    {"q": "How many?", "options": ["1", "2"], "answers": ["2"], "file": "b.png"},
    {"q": "Which colour?", "options": ["red", "blue"], "answers": ["red"], "file": "a.png"},
]
TASK: dict[str, Any] = {
    "task": "tiny",
    "dataset_path": "json",
    "dataset_kwargs": {"data_files": {"test": "data/rows.json"}},
    "test_split": "test",
    "output_type": "generate_until",
    "doc_to_visual": "file",
    "doc_to_text": "{{q}}\n{% for o in options %}{{ 'AB'[loop.index0] }}. {{o}}\n{% endfor %}",
    "doc_to_target": "answers",
    "generation_kwargs": {"max_new_tokens": 16},
    "metric_list": [
        {"metric": "exact_match", "aggregation": "mean", "higher_is_better": True, "ignore_case": True},
        {"metric": "anls", "aggregation": "mean", "higher_is_better": True},
    ],
    "lmms_eval_specific_kwargs": {"default": {"pre_prompt": "Look. ", "post_prompt": "Answer shortly."}},
    "metadata": [{"version": 0.0}],
}


def task(folder: Path, **changes: Any) -> LmmsTask:
    (folder / "data").mkdir(exist_ok=True)
    (folder / "data" / "rows.json").write_text(json.dumps(ROWS))
    tree = {key: value for key, value in {**TASK, **changes}.items() if value is not None}
    (folder / "task.yaml").write_text(yaml.safe_dump(tree))
    return LmmsTask(path=Path("task.yaml"), folder=folder)


def test_prompts_pictures_and_gold_come_from_columns_and_templates(tmp_path: Path) -> None:
    first, second, third = task(tmp_path).questions()
    assert first.prompt == "Look. What is it?\nA. cat\nB. dog\nAnswer shortly."
    assert first.images == second.images == (ImageRef(str(tmp_path / "data" / "a.png")),)  # one picture together
    assert first.gold == ("cat", "a cat") and third.gold == ("2",)


def test_the_first_metric_is_the_headline_and_the_others_stand_beside_it(tmp_path: Path) -> None:
    said = {"0": "A CAT", "1": "two", "2": "rad"}
    result = evaluate(task(tmp_path), Stub(lambda question: said[question.id])).result
    assert result.headline.score == pytest.approx(100 / 3)
    assert result.scores["anls"].score == pytest.approx(100 * (1 + 0 + 2 / 3) / 3)


def test_accuracy_is_read_with_our_normalisation_and_punctuation_can_be_ignored(tmp_path: Path) -> None:
    said = {"0": "Cat.", "1": "2.", "2": "Red!"}
    lists = ([{"metric": "accuracy"}], [{"metric": "exact_match", "ignore_case": True, "ignore_punctuation": True}])
    for metrics in lists:
        assert evaluate(task(tmp_path, metric_list=metrics), Stub(lambda q: said[q.id])).result.headline.score == 100
    strict = task(tmp_path, metric_list=[{"metric": "exact_match"}])
    assert evaluate(strict, Stub(lambda q: said[q.id])).result.headline.score == 0


def test_parquet_pictures_stay_in_the_file(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (5, 5), "red").save(buffer, "PNG")
    rows = [{**row, "picture": {"bytes": buffer.getvalue(), "path": None}} for row in ROWS]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "test-00000.parquet")
    made = task(tmp_path, dataset_path=".", dataset_kwargs=None, doc_to_visual="picture")
    assert made.questions()[1].images == (ImageRef(str(tmp_path / "test-00000.parquet"), "1", "picture"),)
    assert evaluate(made, Stub(gold)).result.headline.score == 100


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"metric_list": [{"metric": "bleu"}]}, "metric_list.0.metric"),
        ({"process_results": "x"}, "unknown key `process_results`"),
        ({"output_type": "multiple_choice"}, "output_type"),
        ({"doc_to_text": "question"}, "no column `question`"),
        ({"doc_to_text": "{{question}}"}, "'question' is undefined"),
        ({"doc_to_text": "{{q"}, "template `{{q`"),
        ({"doc_to_text": "{{ q.__class__.__mro__ }}"}, "unsafe"),
        ({"doc_to_target": None}, "doc_to_target"),
        ({"dataset_path": "lmms-lab/GQA", "dataset_kwargs": None}, "nothing is downloaded"),
        ({"dataset_kwargs": {"data_files": {"train": "data/rows.json"}}}, "no single local file of split `test`"),
        ({"metric_list": []}, "metric_list"),
    ],
)
def test_what_is_not_declarative_is_refused_by_name(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError) as error:
        task(tmp_path, **changes).questions()
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("doc_to_text: !function utils.text", "`!function` needs Python of its own"),
        ("- 1", "no task"),
        ("a: [", "no valid YAML"),
        ("", "no task"),
    ],
)
def test_files_that_are_no_task_are_told(tmp_path: Path, text: str, said: str) -> None:
    made = task(tmp_path)
    (tmp_path / "task.yaml").write_text(text)
    with pytest.raises(UserError) as error:
        made.questions()
    assert said in str(error.value)


def test_an_empty_gold_answer_is_told(tmp_path: Path) -> None:
    made = task(tmp_path, doc_to_target="{{''}}")
    with pytest.raises(UserError, match=r"row 0: .* is empty"):
        made.questions()


@pytest.mark.parametrize(("splits", "file"), [({}, "test"), ({"test_split": None, "validation_split": "val"}, "val")])
def test_the_split_names_the_file_of_a_folder(tmp_path: Path, splits: dict[str, Any], file: str) -> None:
    made = task(tmp_path, dataset_path="data", dataset_kwargs=None, **{"test_split": None, **splits})
    (tmp_path / "data" / "rows.json").rename(tmp_path / "data" / f"{file}.json")
    assert len(made.questions()) == 3
