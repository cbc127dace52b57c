"""The declarative part of a lmms-eval task: a YAML file on local data, without any Python of its own.

In: the YAML text. Out: a checked `TaskFile`. Columns are named, or written as Jinja templates of columns; what needs a
function (`!function`), a download or several turns is refused by name, never passed over.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import jinja2
import yaml
from jinja2.sandbox import SandboxedEnvironment
from pydantic import Field

from bunny.core.errors import UserError
from bunny.core.log import log
from bunny.core.recipe import Section, check
from bunny.evaluate.files import Row, json_of, jsonl_of, parquet_of, table_of, text_of

IGNORED = ("tag", "group", "metadata", "dataset_name", "task_alias", "training_split", "num_fewshot", "cluster_key")
ELSEWHERE = ("generation_kwargs",)  # the answerer's settings are the recipe's
ENDINGS = (".parquet", ".jsonl", ".json", ".csv", ".tsv")
_TEMPLATES = SandboxedEnvironment(undefined=jinja2.StrictUndefined, keep_trailing_newline=True)


class Metric(Section):
    """One entry of `metric_list`; the first one is the headline."""

    metric: Literal["exact_match", "anls", "accuracy", "acc"]
    aggregation: Literal["mean"] = "mean"
    higher_is_better: Literal[True] = True
    ignore_case: bool = False  # of exact_match
    ignore_punctuation: bool = False  # of exact_match


class Around(Section):
    """Text around every question."""

    pre_prompt: str = ""
    post_prompt: str = ""


class TaskFile(Section):
    """What is read of the YAML file."""

    task: str = ""
    dataset_path: str  # a file or a folder, or `json`, `parquet`, `csv` with `dataset_kwargs.data_files`
    dataset_kwargs: dict[str, Any] = Field(default_factory=dict)
    test_split: str = ""  # default: the validation split, else `test`
    validation_split: str = ""
    output_type: Literal["generate_until"] = "generate_until"
    doc_to_visual: str = ""  # column, or template of a path
    doc_to_text: str
    doc_to_target: str
    metric_list: tuple[Metric, ...] = Field(min_length=1)
    lmms_eval_specific_kwargs: dict[str, Any] = Field(default_factory=dict)

    @property
    def around(self) -> Around:
        """The text around questions that holds for every model."""
        given = self.lmms_eval_specific_kwargs
        return check(Around, given.get("default", given), "lmms_eval_specific_kwargs")


def read_task(path: Path) -> TaskFile:
    """Raises UserError with the first thing that the declarative part does not have."""

    def refused(loader: Any, suffix: str, node: Any) -> Any:
        raise UserError(f"{path}: `!{suffix}` needs Python of its own", fix="name a column or write a Jinja template")

    class Loader(yaml.SafeLoader):
        """Safe YAML that names a tag it does not have."""

    Loader.add_multi_constructor("!", refused)
    try:
        tree = yaml.load(text_of(path), Loader)  # a SafeLoader
    except yaml.YAMLError as error:
        raise UserError(f"{path}: no valid YAML: {' '.join(str(error).split())}", fix="mend that place") from None
    if not isinstance(tree, dict):
        raise UserError(f"{path}: no task", fix="see docs/evaluate.md for an example")
    elsewhere = [key for key in ELSEWHERE if key in tree]
    if elsewhere:
        log.info("%s: %s is set in the recipe, not here", path, ", ".join(elsewhere))
    return check(TaskFile, {key: tree[key] for key in tree if key not in (*IGNORED, *ELSEWHERE)}, str(path))


def data_file(task: TaskFile, folder: Path) -> Path:
    """The local file of the task's split. Raises UserError where it is not here: nothing is downloaded."""
    split = task.test_split or task.validation_split or "test"
    given = task.dataset_kwargs.get("data_files")
    name = given.get(split) if isinstance(given, Mapping) else given
    if isinstance(name, list) and len(name) == 1:
        name = name[0]
    path = folder / (name if isinstance(name, str) else task.dataset_path)
    if path.is_dir():
        found = [one for one in path.glob(f"**/{split}*") if one.suffix in ENDINGS]
        path = found[0] if len(found) == 1 else path
    if not path.is_file():
        raise UserError(
            f"{path}: no single local file of split `{split}`",
            fix="give a file as `dataset_path`, or `dataset_kwargs: {data_files: {test: …}}`; nothing is downloaded",
        )
    return path


def rows_of(path: Path, visual: str) -> list[Row]:
    """All rows. The column of pictures of a Parquet file is left out: it is read when a model looks."""
    if path.suffix == ".parquet":
        import pyarrow.parquet as pq

        return parquet_of(path, [name for name in pq.read_schema(path).names if name != visual])
    if path.suffix == ".json":
        rows = json_of(path)
        if not (isinstance(rows, list) and all(isinstance(row, dict) for row in rows)):
            raise UserError(f"{path}: not a list of objects", fix="give one object a question")
        return rows
    return jsonl_of(path) if path.suffix == ".jsonl" else table_of(path)


def fill(template: str, row: Row, where: str) -> Any:
    """The column of that name, or the template filled with the row's columns. Raises UserError for unknown columns."""
    if template in row:
        return row[template]
    if "{" not in template:
        raise UserError(f"{where}: no column `{template}`", fix="columns there: " + ", ".join(map(str, row)))
    try:
        return _TEMPLATES.from_string(template).render(**row)
    except jinja2.TemplateError as error:
        raise UserError(f"{where}: template `{template}`: {error}", fix="columns there: " + ", ".join(row)) from None
