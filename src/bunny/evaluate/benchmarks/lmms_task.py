"""A lmms-eval task in YAML on local files, as far as it is declarative: columns, templates, simple metrics.

In: `task.yaml` and the JSON, CSV or Parquet file that it names. Out: its questions, and its metrics: `exact_match`
(with `ignore_case` and `ignore_punctuation`), `accuracy` (after our normalisation), `anls` (the best of several gold
answers). Metrics are means in per cent with intervals by pictures; the first is the headline.
"""

from __future__ import annotations

import json
import string
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import numpy as np

from bunny.core.errors import UserError
from bunny.core.recipe import Section
from bunny.core.types import Answer, EvalResult, FloatArray, ImageRef, Parsed, Question
from bunny.evaluate.files import Row
from bunny.evaluate.official.benchmark import together
from bunny.evaluate.official.made_up import picture
from bunny.evaluate.parse import normalise
from bunny.evaluate.scoring import mean_score
from bunny.evaluate.stats import Clusters
from bunny.evaluate.task_yaml import Metric, TaskFile, data_file, fill, read_task, rows_of
from bunny.evaluate.text_metrics import anls

NO_MARKS = str.maketrans("", "", string.punctuation)


class LmmsTask(Section):
    """One task file."""

    name: str = "lmms_task"  # how it is called in reports
    path: Path  # the YAML file; relative to `folder`
    folder: Path = Path()  # where the recipe lies

    def questions(self) -> Sequence[Question]:
        """One question a row, in the file's order, those about one picture together."""
        task = read_task(self.folder / self.path)
        path = data_file(task, (self.folder / self.path).parent)
        rows = rows_of(path, task.doc_to_visual)
        return together([self._question(task, path, number, row) for number, row in enumerate(rows)])

    def parse(self, question: Question, answer: Answer) -> Parsed:
        """The answer without the space around it."""
        return Parsed(answer.text.strip(), "ok" if normalise(answer.text) else "empty")

    def score(self, questions: Sequence[Question], parsed: Sequence[Parsed]) -> EvalResult:
        """The first metric as headline, the others beside it."""
        clusters = Clusters([question.group for question in questions])
        credits: dict[str, FloatArray] = {
            metric.metric: np.array([_credit(metric, item, q) for q, item in zip(questions, parsed, strict=True)])
            for metric in read_task(self.folder / self.path).metric_list
        }
        first, *others = credits
        more = {name: clusters.rate(credits[name]) for name in others}
        return mean_score(self.name, questions, parsed, credits[first], scores=more)

    @classmethod
    def example(cls, folder: Path) -> LmmsTask:
        """Three questions about two pictures, for the contract suite."""
        rows = [
            {"question": f"Which {n}?", "answer": word, "file": f"{n % 2}.png"}
            for n, word in enumerate(["Cat", "7", "a dog"])
        ]
        for n in range(2):
            picture(folder / f"{n}.png", n)
        (folder / "rows.json").write_text(json.dumps(rows), encoding="utf-8")
        lines = [
            "dataset_path: rows.json",
            "doc_to_visual: file",
            'doc_to_text: "{{question}}"',
            "doc_to_target: answer",
        ]
        lines += ["metric_list: [{metric: exact_match, ignore_case: true}, {metric: anls}]"]
        (folder / "task.yaml").write_text("\n".join(lines), encoding="utf-8")
        return cls(path=folder / "task.yaml")

    def _question(self, task: TaskFile, path: Path, number: int, row: Row) -> Question:
        where = f"{path}: row {number}"
        text = f"{task.around.pre_prompt}{fill(task.doc_to_text, row, where)}{task.around.post_prompt}"
        target = fill(task.doc_to_target, row, where)
        gold = tuple(str(each) for each in (target if isinstance(target, list) else [target]) if str(each).strip())
        if not gold:
            raise UserError(f"{where}: `{task.doc_to_target}` is empty", fix="give every question an answer")
        images = _images(task, path, number, row, where)
        group = str(images[0]) if images else str(number)
        return Question(str(number), text.replace("<image>", "").strip(), images, gold, group, MappingProxyType({}))


def _images(task: TaskFile, path: Path, number: int, row: Mapping[str, object], where: str) -> tuple[ImageRef, ...]:
    """The row's pictures: cells of a Parquet column, or files beside the data."""
    if not task.doc_to_visual:
        return ()
    if path.suffix == ".parquet" and "{" not in task.doc_to_visual:
        return (ImageRef(str(path), str(number), task.doc_to_visual),)
    found = fill(task.doc_to_visual, dict(row), where)
    return tuple(ImageRef(str(path.parent / str(name))) for name in (found if isinstance(found, list) else [found]))


def _credit(metric: Metric, item: Parsed, question: Question) -> float:
    """What the answer is worth by one metric, 0 to 1: the best over the gold answers."""
    said = item.value
    if metric.metric == "anls":
        return max(anls(said.lower().strip(), gold.lower().strip()) for gold in question.gold)
    if metric.metric in ("accuracy", "acc"):
        return float(normalise(said) in {normalise(gold) for gold in question.gold})
    return float(_plain(metric, said) in {_plain(metric, gold) for gold in question.gold})


def _plain(metric: Metric, text: str) -> str:
    text = text.strip().lower() if metric.ignore_case else text.strip()
    return text.translate(NO_MARKS) if metric.ignore_punctuation else text


USE = LmmsTask
