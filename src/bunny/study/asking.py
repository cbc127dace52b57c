"""A cell's model is asked all questions of the study.

In: a model folder, benchmarks. Out: for each benchmark one row a question: what was said, what it is worth, and how
likely the model found each candidate ("yes" and "no", or all words of the set). All cells get the same questions.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from bunny.core.protocols import Benchmark
from bunny.core.recipe import make
from bunny.core.types import Answer, GenerationSettings, Question
from bunny.study.recipe import Study

YES_NO = ("yes", "no")
QUESTION_SEED = 0
"""Draws the questions, whatever the cell's seed is."""

Row = dict[str, Any]


def benchmarks_of(study: Study) -> list[Any]:
    """The study's benchmarks. Raises UserError for one that cannot be made."""
    from bunny.evaluate import BENCHMARKS

    folder = study.locate(".")
    return [
        make(block, BENCHMARKS, f"tasks.{number}", seed=QUESTION_SEED, folder=folder)
        for number, block in enumerate(study.tasks)
    ]


def ask(
    model: Path, name: str, benchmarks: Sequence[Benchmark], study: Study, precision: Literal["fp32", "bf16"]
) -> dict[str, list[Row]]:
    """Rows by benchmark, in the order of its questions; answered in the precision in which the model has learnt."""
    from bunny import evaluate as evaluation
    from bunny.pipeline.answering import Bunny, open_folder

    settings = GenerationSettings(max_new_tokens=study.max_new_tokens)
    who = open_folder(model, study.batch_rows, name)
    assert isinstance(who, Bunny)
    answer_in(who.model, precision)
    found = {}
    for one in benchmarks:
        answerer = _Listening(who, candidates_of(one), settings)
        outcome = evaluation.evaluate(one, answerer, settings=settings)
        found[one.name] = _rows(outcome, answerer)
    return found


def answer_in(model: Any, precision: Literal["fp32", "bf16"]) -> None:
    """Let the language model compute in this precision; pictures are always prepared in float32."""
    model.float()
    if precision == "bf16":
        model.model.language_model.bfloat16()
        model.lm_head.bfloat16()


def candidates_of(benchmark: Benchmark) -> tuple[str, ...]:
    """The words whose chances are noted: those of the benchmark, else yes and no."""
    return tuple(benchmark.candidates()) if hasattr(benchmark, "candidates") else YES_NO


class _Listening:
    """An answerer that notes the chances of the candidates as the first word of each answer."""

    def __init__(self, who: Any, candidates: Sequence[str], settings: GenerationSettings) -> None:
        from bunny.data.images import open_image
        from bunny.infer.answerer import ModelAnswerer
        from bunny.infer.chances import ChanceGenerator

        self.candidates = candidates
        self.generator = ChanceGenerator(who.model, who.processor, candidates)
        self.inner = ModelAnswerer(self.generator, who.name, open_image, settings, who.batch_rows)
        self.chances: dict[str, list[float]] = {}

    @property
    def name(self) -> str:
        return self.inner.name

    def answer(self, questions: Sequence[Question]) -> Iterator[Answer]:
        heard: list[list[float]] | None = None
        place = 0
        for answer in self.inner.answer(questions):
            if not answer.error:
                if self.generator.heard is not heard:  # a new batch: its answers come in this order
                    heard, place = self.generator.heard, 0
                self.chances[answer.id] = heard[place]
                place += 1
            yield answer


def _rows(outcome: Any, heard: _Listening) -> list[Row]:
    """What is kept of each question. absent: candidates that are surely wrong."""
    rows = []
    for question, line in zip(outcome.questions, outcome.lines(), strict=True):
        row = json.loads(line)
        kept = {key: row[key] for key in ("id", "group", "category", "prompt", "gold", "value", "status", "points")}
        kept["word"] = str(question.meta.get("word", ""))
        kept["absent"] = list(question.meta.get("absent", ()))
        chances = heard.chances.get(question.id, [])
        kept["chances"] = {
            word: float(f"{chance:.4g}") for word, chance in zip(heard.candidates, chances, strict=False)
        }
        rows.append(kept)
    return rows
