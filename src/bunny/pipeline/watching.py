"""What training is lent to watch itself by: how a model answers, how it is scored, how a picture is shown.

In: a recipe and one of its training stages. Out: `bunny.train.watchers.Lent`. Training knows neither inference nor
evaluation; both come to it from here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bunny.core.recipe import EvaluateSection, Recipe, StageSection, make
from bunny.core.types import EvalResult, GenerationSettings, Question
from bunny.pipeline.thumbnail import thumbnail

SIDE = 192
"""Pixels of a preview's pictures."""

PREVIEW_TOKENS = 64


def lent(recipe: Recipe, section: StageSection, name: str) -> Any:
    """Everything that the stage's previews and evaluations need. name: of the stage, for messages."""
    from bunny.train.watchers import Lent

    return Lent(
        answer=answer,
        score=_Scorer(recipe, section, name) if section.evaluate else None,
        thumbnail=lambda ref: thumbnail(ref, SIDE),
        held_out=_held_out(recipe, section, name) if section.preview_every_steps else (),
    )


def answer(model: Any, processor: Any, questions: Sequence[Question]) -> list[str]:
    """One greedy answer each; in place of one that cannot be given, the reason in brackets."""
    answerer = _answerer(model, processor, "in training", GenerationSettings(max_new_tokens=PREVIEW_TOKENS), 16)
    found = {one.id: one.text if not one.error else f"({one.error})" for one in answerer.answer(questions)}
    return [found[question.id] for question in questions]


class _Scorer:
    """Scores a model in training on the stage's benchmarks, which are read once."""

    def __init__(self, recipe: Recipe, section: StageSection, name: str) -> None:
        self.settings = recipe.evaluate or EvaluateSection(tasks=[])
        self.benchmarks = _benchmarks(recipe, section, name)

    def __call__(self, model: Any, processor: Any, step: int) -> Mapping[str, EvalResult]:
        from bunny import evaluate as evaluation

        settings = GenerationSettings(max_new_tokens=self.settings.max_new_tokens)
        answerer = _answerer(model, processor, f"step {step}", settings, self.settings.batch_rows)
        return {one.name: evaluation.evaluate(one, answerer, settings=settings).result for one in self.benchmarks}


def _answerer(model: Any, processor: Any, name: str, settings: GenerationSettings, batch_rows: int) -> Any:
    from bunny.data.images import open_image
    from bunny.infer.answerer import ModelAnswerer
    from bunny.infer.generate import Generator

    return ModelAnswerer(Generator(model, processor), name, open_image, settings, batch_rows)


def _benchmarks(recipe: Recipe, section: StageSection, name: str) -> list[Any]:
    """The stage's own benchmarks. Raises UserError for one that cannot be made."""
    from bunny.evaluate import BENCHMARKS

    folder = recipe.locate(".")
    return [
        make(block, BENCHMARKS, f"{name}.evaluate.{number}", seed=recipe.seed, folder=folder)
        for number, block in enumerate(section.evaluate)
    ]


def _held_out(recipe: Recipe, section: StageSection, name: str) -> list[Question]:
    """A few questions of the first benchmark with pictures: the stage's own, else the recipe's."""
    from bunny.train.preview import first_of_each

    blocks = section.evaluate or (recipe.evaluate.tasks if recipe.evaluate else [])
    for benchmark in _benchmarks(recipe, section.model_copy(update={"evaluate": list(blocks)}), name):
        if found := first_of_each(benchmark.questions()):
            return found
    return []
